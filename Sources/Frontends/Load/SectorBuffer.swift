/// Private copy of one 512-byte sector.
struct SectorBuffer: BitwiseCopyable, Equatable {
  private var words = InlineArray<64, UInt64>(repeating: 0)

  static var wordCount: Int { 64 }

  /// Word `index`, 0...63.
  subscript(index: Int) -> UInt64 {
    get { words.span[index] }
    set {
      var span = words.mutableSpan
      span[index] = newValue
    }
  }

  /// True when every byte is 0.
  var isZero: Bool {
    let span = words.span
    for index in 0..<Self.wordCount where span[index] != 0 { return false }
    return true
  }

  /// True when both hold the same bytes.
  static func == (left: SectorBuffer, right: SectorBuffer) -> Bool {
    let ours = left.words.span
    let theirs = right.words.span
    for index in 0..<wordCount where ours[index] != theirs[index] { return false }
    return true
  }

  /// The bytes, to be copied elsewhere.
  func withBytes(_ body: (RawSpan) -> Void) {
    // Sound: every byte of an array of integers is defined.
    body(unsafe words.span.bytes)
  }

  /// The bytes, to be overwritten.
  mutating func withMutableBytes(_ body: (inout MutableRawSpan) -> Void) {
    var span = words.mutableSpan
    // Sound: any bytes are valid integers.
    var bytes = unsafe span.mutableBytes
    body(&bytes)
  }
}

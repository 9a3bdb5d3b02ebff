/// Typed nodes: the only way in which numbers, flags and words that a guest can write enter the program.
///
/// Each parse takes the whole value or throws ``StoreError/badValue(path:value:expected:)`` (XSA-175's
/// class).
extension StoreAccess {
  /// A node's text; throws ``StoreError/missing(path:)`` when there is no such node.
  public func text(_ path: String) throws(StoreError) -> String {
    guard let value = try read(path) else { throw .missing(path: path) }
    return value
  }

  /// A decimal number within `range`, or nil when there is no such node.
  public func decimalIfPresent<Number: FixedWidthInteger>(
    _ path: String, in range: ClosedRange<Number>
  ) throws(StoreError) -> Number? {
    guard let value = try read(path) else { return nil }
    guard let number = StoreValue.decimal(value, in: range) else {
      throw .bad(path, value, expected: "a decimal number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// A decimal number within `range`; `absent` when there is no such node.
  public func decimal<Number: FixedWidthInteger>(
    _ path: String, in range: ClosedRange<Number>, default absent: Number
  ) throws(StoreError) -> Number {
    try decimalIfPresent(path, in: range) ?? absent
  }

  /// A decimal number within `range`; throws ``StoreError/missing(path:)`` when there is no such node.
  public func decimal<Number: FixedWidthInteger>(
    _ path: String, in range: ClosedRange<Number>
  ) throws(StoreError) -> Number {
    guard let number = try decimalIfPresent(path, in: range) else { throw .missing(path: path) }
    return number
  }

  /// "0" or "1"; `absent` when there is no such node.
  public func flag(_ path: String, default absent: Bool) throws(StoreError) -> Bool {
    switch try read(path) {
    case nil: return absent
    case "0": return false
    case "1": return true
    case .some(let value): throw .bad(path, value, expected: "0 or 1")
    }
  }

  /// One of the type's raw values, or nil when there is no such node.
  public func word<Word: RawRepresentable & CaseIterable>(
    _ path: String, of type: Word.Type
  ) throws(StoreError) -> Word? where Word.RawValue == String {
    guard let value = try read(path) else { return nil }
    guard let word = Word(rawValue: value) else {
      let words = Word.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: " or ")
      throw .bad(path, value, expected: words)
    }
    return word
  }

  /// A node's xenbus state, or nil when there is no such node. What is no state throws.
  public func state(_ path: String) throws(StoreError) -> XenbusState? {
    guard let value = try read(path) else { return nil }
    guard let state = XenbusState(text: value) else {
      throw .bad(path, value, expected: "a xenbus state from 0 to 8")
    }
    return state
  }
}

/// Parses of node values that stand alone.
public enum StoreValue {
  /// The number that `text` is as a whole: decimal digits only, within `range`.
  ///
  /// No sign, space, prefix or separator. Leading zeros are taken: peers parse with sscanf("%u"), where "007"
  /// is 7 and never octal, so refusing them would refuse frontends that work elsewhere. At most 20 digits, as
  /// many as 2^64 needs.
  public static func decimal<Number: FixedWidthInteger>(
    _ text: String, in range: ClosedRange<Number>
  ) -> Number? {
    let digits = text.utf8
    guard !digits.isEmpty, digits.count <= 20 else { return nil }
    var number: Number = 0
    for digit in digits {
      guard digit >= 0x30, digit <= 0x39, let value = Number(exactly: digit - 0x30) else { return nil }
      let (product, productOverflows) = number.multipliedReportingOverflow(by: 10)
      let (sum, sumOverflows) = product.addingReportingOverflow(value)
      guard !productOverflows, !sumOverflows else { return nil }
      number = sum
    }
    return range.contains(number) ? number : nil
  }

  /// True for an absolute path as xenstored takes it: at most 3072 bytes of letters, digits and "-/_@", with
  /// no empty component (xs_wire.h, XENSTORE_ABS_PATH_MAX; xenstore.txt on permitted characters).
  public static func isAbsolutePath(_ path: String) -> Bool {
    let bytes = path.utf8
    guard bytes.count > 1, bytes.count <= 3072, bytes.first == UInt8(ascii: "/") else { return false }
    var previous: UInt8 = 0
    for byte in bytes {
      switch byte {
      case UInt8(ascii: "/"):
        guard previous != UInt8(ascii: "/") else { return false }
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "@"):
        break
      default:
        return false
      }
      previous = byte
    }
    return previous != UInt8(ascii: "/")
  }
}

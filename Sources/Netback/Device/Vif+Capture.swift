/// Frames that are watched while they pass.
extension Vif {
  /// Captures of an interface at a time, at most.
  public static var captureLimit: Int { 4 }

  /// Has a capture see the interface's frames, over all connections, until ``end(_:)``. Throws when there are as
  /// many as there can be.
  public func begin(_ capture: FrameCapture) throws(VifError) {
    guard captures.count < Self.captureLimit else {
      throw VifError("\(identity) is captured \(Self.captureLimit) times already; end one of these first")
    }
    captures.append(capture)
    connection?.setCaptures(captures)
  }

  /// A capture sees no more frames; those of turns that are under way may still come.
  public func end(_ capture: FrameCapture) {
    captures.removeAll { $0 === capture }
    connection?.setCaptures(captures)
  }
}

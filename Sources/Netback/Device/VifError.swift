import RingKit

/// Why an interface cannot be served: what, where, and what to do. Ends up in the log and in the device's
/// error node.
public struct VifError: Error, Equatable, CustomStringConvertible {
  /// The message.
  public let description: String

  /// Wraps a message.
  public init(_ description: String) { self.description = description }

  /// Takes over the words of another error.
  public init(_ error: some Error & CustomStringConvertible) { self.init(error.description) }
}

/// How much a message about a device matters.
public enum DeviceSeverity: Sendable {
  /// Ordinary life.
  case information
  /// Something works less well than it could.
  case warning
  /// A device is not served, or no longer.
  case failure
}

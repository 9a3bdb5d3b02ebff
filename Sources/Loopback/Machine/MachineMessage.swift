/// What a domain can ask of the machine: the first word of a request. The other words follow each case.
enum MachineRequest: UInt32 {
  /// version, domain. First on every connection.
  case hello = 1
  /// page count, grantee, writable. Reply: first reference; the memory.
  case share
  /// first reference of a share.
  case endShare
  /// one reference.
  case endGrant
  /// owner, writable, references... Reply: map number, then (index of the descriptor, page) for each;
  /// memories.
  case map
  /// map numbers...
  case unmap
  /// owner. Reply: nothing; the owner's grant words, read-only.
  case grantWords
  /// owner, reference. Reply: first reference, page count, grant word; the memory.
  case lookUp
  /// remote domain. Reply: port; inbox and outbox.
  case allocatePort
  /// remote domain, remote port. Reply: port; inbox and outbox.
  case bindPort
  /// port.
  case closePort

  /// Spoken by both sides; a machine refuses any other.
  static var version: UInt32 { 1 }
  /// References in one map request.
  static var maximumReferenceCount: Int { 96 }
}

/// Why the machine refused a request: the first word of a reply, 0 being success.
enum MachineRefusal: UInt32, Error {
  /// Not a request of this protocol, or out of order.
  case malformed = 1
  /// No such domain.
  case unknownDomain
  /// Not a live grant to the caller.
  case badReference
  /// A read-only grant asked for writing.
  case readOnly
  /// Some bound of the machine is reached.
  case noSpace
  /// Not a port that the caller may use that way.
  case badPort
  /// The machine itself lacks memory or descriptors.
  case exhausted
}

public import Netback
public import RingKit

/// What can be asked for on the control ring (netif.h, XEN_NETIF_CTRL_TYPE_*; net.md 1.7). Each call waits
/// for its answer; a status other than SUCCESS is thrown.
extension NetFrontend {
  /// Asks, waits, and gives the answer whatever its status is.
  public func ask(
    _ type: NetControlType, _ first: UInt32 = 0, _ second: UInt32 = 0, _ third: UInt32 = 0,
    timeoutMilliseconds: Int = 5000
  ) throws(NetFrontendError) -> NetControlResponse {
    guard let control else { throw .notOffered("feature-ctrl-ring") }
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    guard let id = try control.place(type, first, second, third) else {
      throw .stalled("place on the control ring", milliseconds: 0)
    }
    if control.push() { try notify(control.port) }
    while true {
      while let response = try control.nextResponse() {
        if response.id == id { return response }
      }
      guard try !control.requestEvent() else { continue }
      let left = deadline.left
      guard left > 0 else {
        throw .stalled("answer to control request \(type.rawValue)", milliseconds: timeoutMilliseconds)
      }
      try sleep(atMost: left)
    }
  }

  @discardableResult
  private func insist(
    _ type: NetControlType, _ first: UInt32 = 0, _ second: UInt32 = 0, _ third: UInt32 = 0
  ) throws(NetFrontendError) -> UInt32 {
    let response = try ask(type, first, second, third)
    guard response.status == NetControlStatus.success.rawValue else {
      throw .refused(type, status: response.status)
    }
    return response.data
  }

  // MARK: Hash

  /// Chooses the algorithm: 0 for none, 1 for Toeplitz. Packets may carry hashes from then on.
  public func setHashAlgorithm(_ algorithm: UInt32) throws(NetFrontendError) {
    // The backend may use it before its answer is seen.
    if algorithm != 0 { for queue in queues { queue.receiver.expectsHashes = true } }
    try insist(.setHashAlgorithm, algorithm)
  }

  /// The hash types that the backend knows: bit n for ``NetHashType`` n.
  public func hashFlags() throws(NetFrontendError) -> UInt32 { try insist(.getHashFlags) }

  /// Chooses the types that are hashed.
  public func setHashFlags(_ flags: UInt32) throws(NetFrontendError) { try insist(.setHashFlags, flags) }

  /// Sets the key, 0...4096 bytes of which a backend may take fewer; none clears it.
  public func setHashKey(_ key: [UInt8]) throws(NetFrontendError) {
    guard let control else { throw .notOffered("feature-ctrl-ring") }
    control.dataPages.pages.setBytes(key, at: 0)
    try insist(.setHashKey, control.dataReference.rawValue, UInt32(key.count))
  }

  /// Entries that the table from hash to queue may have.
  public func hashMappingSize() throws(NetFrontendError) -> UInt32 { try insist(.getHashMappingSize) }

  /// Gives the table a size, and zeroes it; without entries the queue is the hash modulo their number.
  public func setHashMappingSize(_ count: UInt32) throws(NetFrontendError) {
    try insist(.setHashMappingSize, count)
  }

  /// Sets entries of the table, at most 1024 of them, from `first` on.
  public func setHashMapping(_ queues: [UInt32], from first: UInt32 = 0) throws(NetFrontendError) {
    guard let control else { throw .notOffered("feature-ctrl-ring") }
    control.dataPages.pages.setBytes(Self.bytes(queues), at: 0)
    try insist(.setHashMapping, control.dataReference.rawValue, UInt32(queues.count), first)
  }

  // MARK: Staging grants

  /// A grant that is to stay mapped (netif.h, struct xen_netif_gref).
  public struct StagingGrant: Equatable, Sendable {
    /// The page.
    public var reference: GrantReference
    /// The backend may only read it (XEN_NETIF_CTRLF_GREF_readonly).
    public var isReadOnly: Bool
    /// What the backend wrote beside it when grants were let go of.
    public var status: UInt16

    /// Names a page.
    public init(reference: GrantReference, isReadOnly: Bool, status: UInt16 = 0) {
      self.reference = reference
      self.isReadOnly = isReadOnly
      self.status = status
    }

    /// Bytes of an entry in the list.
    static var byteCount: Int { 8 }
    /// Entries of a list at most: a page of them.
    public static var listCapacity: Int { pageByteCount / byteCount }
  }

  /// How many grants of a queue may stay mapped.
  public func grantMappingSize(of queue: Int) throws(NetFrontendError) -> UInt32 {
    try insist(.getGrantMappingSize, UInt32(queue))
  }

  /// Has the backend map grants for good, all or none, at most ``StagingGrant/listCapacity``.
  public func addGrantMapping(_ grants: [StagingGrant], to queue: Int) throws(NetFrontendError) {
    let reference = try writeList(grants)
    try insist(.addGrantMapping, UInt32(queue), reference.rawValue, UInt32(grants.count))
  }

  /// Has the backend let go of grants; how many it did, and each one's status.
  public func deleteGrantMapping(
    _ grants: [StagingGrant], of queue: Int
  ) throws(NetFrontendError) -> (count: UInt32, grants: [StagingGrant]) {
    guard let control else { throw .notOffered("feature-ctrl-ring") }
    let reference = try writeList(grants)
    let count = try insist(
      .deleteGrantMapping, UInt32(queue), reference.rawValue, UInt32(grants.count))
    let words = control.dataPages.pages.copyWords(at: 0, count: grants.count)
    return (
      count,
      words.map { word in
        StagingGrant(
          reference: GrantReference(rawValue: UInt32(truncatingIfNeeded: word)),
          isReadOnly: word >> 32 & 1 == 1, status: UInt16(truncatingIfNeeded: word >> 48))
      }
    )
  }

  /// Has all data pages of all queues mapped for good: from then on no packet needs a grant copy.
  public func stageAllPages() throws(NetFrontendError) {
    for queue in queues {
      let grants =
        queue.transmitter.dataPages.references.map { StagingGrant(reference: $0, isReadOnly: true) }
        + queue.receiver.dataPages.references.map { StagingGrant(reference: $0, isReadOnly: false) }
      for start in stride(from: 0, to: grants.count, by: StagingGrant.listCapacity) {
        let end = min(start + StagingGrant.listCapacity, grants.count)
        try addGrantMapping(Array(grants[start..<end]), to: queue.number)
      }
    }
  }

  private func writeList(_ grants: [StagingGrant]) throws(NetFrontendError) -> GrantReference {
    guard let control else { throw .notOffered("feature-ctrl-ring") }
    precondition(grants.count <= StagingGrant.listCapacity)
    control.dataPages.pages.setWords(
      grants.map { grant in
        UInt64(grant.reference.rawValue) | (grant.isReadOnly ? 1 << 32 : 0) | UInt64(grant.status) << 48
      }, at: 0)
    return control.dataReference
  }

  private static func bytes(_ words: [UInt32]) -> [UInt8] {
    words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * UInt32($0))) } }
  }
}

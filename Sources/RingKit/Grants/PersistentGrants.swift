/// A page of the cache, pinned.
public struct PersistentPage { public var handle: UInt32; public var segment: IOSegment }
/// The cache of persistent mappings of one ring.
public struct PersistentGrants: ~Copyable {
  public var mappedCount: Int { 0 }
  public init(domain: DomainID, capacity: Int) {}
  public mutating func page(for: GrantReference, using: any GrantTable) -> PersistentPage? { nil }
  public mutating func unpin(_ handle: UInt32) {}
}

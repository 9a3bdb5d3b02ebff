import RingKit

/// Which disk it is and how it is: what each account of a disk begins with.
struct DiskHeader: Codable, Equatable {
  var domain: UInt16
  var vdev: UInt32
  var name: String
  var kind: String
  var state: String
  var image: String
  var mode: String
}

/// An account of a disk: its header and what more is told, in JSON as one object.
@dynamicMemberLookup
struct DiskAccount<More: Codable & Equatable>: Codable, Equatable {
  var disk: DiskHeader
  var more: More

  init(_ disk: DiskHeader, _ more: More) {
    self.disk = disk
    self.more = more
  }

  init(from decoder: any Decoder) throws {
    disk = try DiskHeader(from: decoder)
    more = try More(from: decoder)
  }

  func encode(to encoder: any Encoder) throws {
    try disk.encode(to: encoder)
    try more.encode(to: encoder)
  }

  subscript<Value>(dynamicMember path: KeyPath<DiskHeader, Value>) -> Value { disk[keyPath: path] }

  subscript<Value>(dynamicMember path: WritableKeyPath<More, Value>) -> Value {
    get { more[keyPath: path] }
    set { more[keyPath: path] = newValue }
  }
}

extension DiskHeader {
  init(_ sample: DiskSample) {
    domain = sample.address.domain.rawValue
    vdev = sample.address.device
    name = sample.name
    kind = sample.address.kind
    state = sample.state
    image = sample.image
    mode = sample.mode
  }
}

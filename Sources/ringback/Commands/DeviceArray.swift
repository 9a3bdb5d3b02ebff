/// Disks and then interfaces, as one array in JSON; `kind` tells which an element is: "vif" for an interface.
struct DeviceArray<Disk: Encodable>: Encodable {
  var disks: [Disk]
  var interfaces: [VifNumbers]

  func encode(to encoder: any Encoder) throws {
    var array = encoder.unkeyedContainer()
    for disk in disks { try array.encode(disk) }
    for interface in interfaces { try array.encode(interface) }
  }
}

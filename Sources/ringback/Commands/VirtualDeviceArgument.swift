import ArgumentParser
import Blkback

/// A disk's name on the command line.
struct VirtualDeviceArgument: ExpressibleByArgument {
  let device: VirtualDevice

  init?(argument: String) {
    guard let device = VirtualDevice(argument) else { return nil }
    self.device = device
  }

  var defaultValueDescription: String { device.description }
}

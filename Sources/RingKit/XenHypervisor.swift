import Glibc

/// The Xen that this domain runs on.
public struct XenHypervisor: Hypervisor {
  public var name: String { "xen" }

  /// Names the host; devices are opened by the calls below.
  public init() {}

  public func openGrantTable() throws(HostError) -> any GrantTable { try XenGrantTable() }

  public func openGrantSharing() throws(HostError) -> any GrantSharing { try XenGrantSharing() }

  public func openEventChannels() throws(HostError) -> any EventChannels { try XenEventChannels() }

  public func openStore() throws(HostError) -> StoreClient {
    do {
      return try StoreClient()
    } catch {
      throw HostError("\(error); without Xen, use --hypervisor loopback")
    }
  }
}

extension HostError {
  /// Says why a Xen device could not be opened and what the administrator can do.
  static func missingDevice(_ path: String, module: String, errno code: Int32) -> HostError {
    let reason =
      switch code {
      case ENOENT, ENODEV, ENXIO:
        "no such device: this is not a Xen domain, or \(module) is not loaded (modprobe \(module))"
      case EACCES, EPERM: "only root, or the owner of that device, may use it"
      default: SystemError(call: "open", errno: code).description
      }
    return HostError("\(path): \(reason); without Xen, use --hypervisor loopback")
  }
}

import Glibc
public import RingKit

/// The loopback machine as one domain sees it.
public struct LoopbackHypervisor: Hypervisor {
  /// Where the machine's sockets are.
  public let directory: String
  /// Who we are.
  public let domain: DomainID
  // The domain lives as long as this connection; handles hold it, so a domain does not die and come back
  // between two handles.
  private let presence: MachineLink

  public var name: String { "loopback" }

  /// Joins the machine of `directory` as `domain`. Several processes may be one domain.
  public init(directory: String, domain: DomainID) throws(HostError) {
    self.directory = directory
    self.domain = domain
    presence = try MachineLink(directory: directory, domain: domain)
  }

  private func link() throws(HostError) -> MachineLink {
    try MachineLink(directory: directory, domain: domain)
  }

  public func openGrantTable() throws(HostError) -> any GrantTable {
    LoopbackGrantTable(link: try link(), presence: presence)
  }

  public func openGrantSharing() throws(HostError) -> any GrantSharing {
    LoopbackGrantSharing(link: try link(), presence: presence)
  }

  public func openEventChannels() throws(HostError) -> any EventChannels {
    do {
      return try LoopbackEventChannels(link: try link(), presence: presence)
    } catch let error as HostError {
      throw error
    } catch {
      throw HostError("loopback event channels: \(error)")
    }
  }

  public func openStore() throws(HostError) -> StoreClient {
    do {
      return try StoreClient(
        socketPath: StoreServer.socketPath(in: directory, domain: domain.rawValue))
    } catch {
      throw HostError("\(error) (was domain \(domain) added to the loopback host?)")
    }
  }
}

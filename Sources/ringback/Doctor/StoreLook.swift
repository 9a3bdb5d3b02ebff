import Blkback
import Glibc
import RingKit

/// What xenstore tells of this domain and of the devices that it is to serve.
struct StoreLook: Sendable, Equatable {
  var socketPath: String
  var ownDomain: DomainID
  /// The toolstack made this domain with driver_domain=1: it then has a directory `libxl` of its own
  /// (libxl_create.c, libxl__domain_make).
  var isDriverDomain: Bool
  var devices: [DeviceLook]

  /// Looks. A device that seems stuck is looked at again after `settleMilliseconds`: most are only on their
  /// way.
  init(_ store: StoreClient, kinds: [String], settleMilliseconds: Int32 = 500) throws {
    let own = try store.ownDomain()
    socketPath = store.socketPath
    ownDomain = own
    isDriverDomain = try store.exists("/local/domain/\(own)/libxl")
    devices = try Self.devices(of: own, kinds: kinds, in: store)
    guard devices.contains(where: { $0.isStuck }) else { return }
    var poll = DescriptorPoll()
    poll.set([])
    _ = try poll.wait(timeoutMilliseconds: settleMilliseconds)
    devices = try Self.devices(of: own, kinds: kinds, in: store)
  }

  private static func devices(
    of own: DomainID, kinds: [String], in store: any StoreAccess
  ) throws(StoreError) -> [DeviceLook] {
    var directory = BackendDirectory(backend: own, kinds: kinds)
    var found: [DeviceLook] = []
    for kind in kinds {
      for address in try directory.scan(kind, in: store).appeared {
        found.append(try DeviceLook(address, backend: own, in: store))
      }
    }
    return found
  }
}

/// One device's nodes.
struct DeviceLook: Sendable, Equatable {
  var address: DeviceAddress
  /// The directory of its backend.
  var directory: String
  var own: XenbusState?
  var frontend: XenbusState?
  var hotplugStatus: String?
  var hotplugError: String?
  /// The script that is to say hotplug-status.
  var script: String?
  /// What a daemon has written of it.
  var error: String?
  /// Whether the guest's domain is there.
  var hasGuest = true
  /// A node that cannot be read or trusted.
  var trouble: String?

  /// A device of which nothing is known yet.
  init(_ address: DeviceAddress, directory: String) {
    self.address = address
    self.directory = directory
  }

  /// Reads the nodes. Only a store that fails throws: what nodes hold is a finding.
  init(_ address: DeviceAddress, backend: DomainID, in store: any StoreAccess) throws(StoreError) {
    self.init(address, directory: "/local/domain/\(backend)/backend/\(address)")
    do throws(StoreError) {
      own = try store.state("\(directory)/state")
      hotplugStatus = try store.read("\(directory)/hotplug-status")
      hotplugError = try store.read("\(directory)/hotplug-error")
      script = try store.read("\(directory)/script")
      error = try store.read(BackendNodes.errorNode(of: address, backend: backend))
      let nodes = try BackendNodes(address, backend: backend, in: store)
      hasGuest = try Self.hasGuest(nodes, in: store)
      if hasGuest { frontend = try store.state(nodes.frontendState) }
    } catch {
      switch error {
      case .missing, .untrustworthy: trouble = "\(error)"
      case .cannotConnect, .connectionLost, .refused, .conflicts:
        guard error.isAboutTheNode else { throw error }
        trouble = "\(error)"
      case .notText, .tooLong, .badValue: trouble = "\(error)"
      }
    }
  }

  /// Whether the guest is there. A driver domain may read its frontend's nodes, and nothing else of it: neither
  /// may it when the guest is gone.
  private static func hasGuest(_ nodes: BackendNodes, in store: any StoreAccess) throws(StoreError) -> Bool {
    do throws(StoreError) {
      return try store.exists("/local/domain/\(nodes.address.domain)")
    } catch .refused(_, _, EACCES) {
      do throws(StoreError) {
        return try store.exists(nodes.frontendDirectory)
      } catch .refused(_, _, EACCES) {
        return false
      }
    }
  }

  /// Whether it is a network interface; a disk otherwise.
  var isInterface: Bool { address.kind == DaemonVifs.kind }

  /// Nobody has taken the device, or its guest waits for it: blkfront in Initialised, netfront in Connected.
  var isStuck: Bool {
    hasGuest
      && (own == .initialising
        || (own == .initWait && (frontend == .initialised || (isInterface && frontend == .connected))))
  }
}

import Foundation
import Netback
import RingKit
import Synchronization

/// A daemon of interfaces in miniature: one control thread, inside a network of its own, that looks at every
/// interface whenever anything changed, with the data threads and TAPs of the real one.
final class NetDeviceDaemon: Sendable {
  private enum Message: Sendable {
    case vif(DeviceAddress, VifEvent)
    case command(@Sendable ([DeviceAddress: Vif]) -> Void)
    case stop
    case crash
  }

  private let log = Mutex<[String]>([])
  private let inbox: Mailbox<Message>
  private let opened = DispatchSemaphore(value: 0)
  private let ended = DispatchSemaphore(value: 0)
  private let failure = Mutex<String?>(nil)

  /// Starts serving; TAPs become ports of `bridge`. Throws when it cannot open what it needs.
  init(
    hypervisor: any Hypervisor, network: NetworkNamespace, bridge: String, offer: VifOffer, threadCount: Int
  ) throws {
    inbox = try Mailbox()
    let thread = Thread { [self] in
      do {
        try network.run { [self] in
          let control = try Control(self, hypervisor, network, bridge, offer, threadCount)
          opened.signal()
          try control.run()
        }
      } catch {
        failure.withLock { $0 = "\(error)" }
        opened.signal()
      }
      ended.signal()
    }
    thread.start()
    guard opened.wait(timeout: .now() + 20) == .success else { throw WorldFailure("no daemon starts") }
    if let failure = failure.withLock({ $0 }) { throw WorldFailure("the daemon: \(failure)") }
  }

  /// Everything logged so far.
  var lines: [String] { log.withLock { $0 } }

  /// Asks the control thread about an interface.
  func ask<Answer: Sendable>(
    _ device: DeviceAddress, _ question: @escaping @Sendable (Vif) -> Answer
  ) throws -> Answer {
    let handoff = Mutex<Answer?>(nil)
    let answered = DispatchSemaphore(value: 0)
    inbox.post(
      .command { vifs in
        if let vif = vifs[device] { handoff.withLock { $0 = question(vif) } }
        answered.signal()
      })
    guard answered.wait(timeout: .now() + 20) == .success, let answer = handoff.withLock({ $0 }) else {
      throw WorldFailure("there is no interface \(device): \(lines)")
    }
    return answer
  }

  /// Drains every interface and ends; a failure or a hang is thrown.
  func stop() throws {
    inbox.post(.stop)
    guard ended.wait(timeout: .now() + 20) == .success else {
      throw WorldFailure("the daemon does not stop: \(lines)")
    }
    if let failure = failure.withLock({ $0 }) { throw WorldFailure("the daemon: \(failure)") }
  }

  /// Ends without a word to anybody, with all its interfaces as they are.
  func crash() throws {
    inbox.post(.crash)
    guard ended.wait(timeout: .now() + 20) == .success else { throw WorldFailure("the daemon does not end") }
  }

  /// What belongs to the control thread.
  private final class Control: VifEnvironment {
    let store: any StoreSession
    let ownDomain: DomainID
    let vifOffer: VifOffer
    let postVif: @Sendable (DeviceAddress, VifEvent) -> Void
    let netBufferShareByteCount = 8 << 20
    let serverName: String? = nil
    let rivalOfVifs: String? = nil
    private let client: StoreClient
    private let daemon: NetDeviceDaemon
    private let network: NetworkNamespace
    private let bridge: String
    private let threads: [DataThread<NetQueue>]
    private var nextThread = 0
    private var vifs: [DeviceAddress: Vif] = [:]
    private var isStopping = false
    private static let kindPath = "/local/domain/0/backend/vif"

    init(
      _ daemon: NetDeviceDaemon, _ hypervisor: any Hypervisor, _ network: NetworkNamespace, _ bridge: String,
      _ offer: VifOffer, _ threadCount: Int
    ) throws {
      self.daemon = daemon
      self.network = network
      self.bridge = bridge
      vifOffer = offer
      client = try hypervisor.openStore()
      store = client
      ownDomain = try client.ownDomain()
      var sizes = DataThreadConfiguration()
      sizes.registersPool = false
      threads = try (0..<threadCount).map {
        try DataThread<NetQueue>(number: $0, hypervisor: hypervisor, configuration: sizes)
      }
      postVif = { [inbox = daemon.inbox] in inbox.post(.vif($0, $1)) }
      try client.watch(Self.kindPath, token: "kind")
    }

    func run() throws {
      var poll = DescriptorPoll()
      poll.set([(client.descriptor, false), (daemon.inbox.descriptor, false)])
      while !(isStopping && vifs.isEmpty) {
        _ = try poll.wait(timeoutMilliseconds: 5000)
        for message in daemon.inbox.take() {
          switch message {
          case .vif(let identity, let event): vifs[identity]?.handle(event)
          case .command(let body): body(vifs)
          case .stop:
            isStopping = true
            for vif in Array(vifs.values) { vif.stop() }
          case .crash: return endThreads()
          }
        }
        var changed = false
        while try client.nextWatchEvent() != nil { changed = true }
        if changed { try lookAtAll() }
      }
      endThreads()
    }

    private func endThreads() {
      threads.forEach { $0.stop() }
      for thread in threads {
        guard let failure = thread.join() else { continue }
        daemon.failure.withLock { $0 = "data thread \(thread.number): \(failure)" }
      }
    }

    private func lookAtAll() throws {
      for domain in try client.list(Self.kindPath) ?? [] {
        for device in try client.list("\(Self.kindPath)/\(domain)") ?? [] {
          guard let domain = UInt16(domain), let number = UInt32(device) else { continue }
          let identity = DeviceAddress(kind: "vif", domain: DomainID(rawValue: domain), device: number)
          let path = "\(Self.kindPath)/\(domain)/\(number)"
          guard vifs[identity] == nil, !isStopping, try client.state("\(path)/state") != .closed else {
            continue
          }
          vifs[identity] = Vif(identity, environment: self)
        }
      }
      for (identity, vif) in vifs {
        if try client.exists("\(Self.kindPath)/\(identity.domain)/\(identity.device)") {
          vif.refresh()
        } else {
          vif.vanish()
        }
      }
    }

    func isServing(_ server: String) -> Bool { false }
    func frontendToken(of vif: DeviceAddress) -> String { "frontend/\(vif)" }
    func netThreads() -> [DataThread<NetQueue>] { threads }

    func claimNetThread(count: Int) -> Int {
      defer { nextThread = (nextThread + count) % threads.count }
      return nextThread
    }

    /// Makes the TAP, and does what the toolstack's script would.
    func openLink(_ configuration: VifConfiguration, of vif: DeviceAddress) throws(VifError) -> any VifLink {
      let link = try TapLink(configuration, of: vif)
      let name = "vif\(vif.domain).\(vif.device)"
      do {
        try network.ip("link set dev \(name) addrgenmode none")
        try network.ip("link set dev \(name) master \(bridge)")
        try network.setUp(name)
      } catch {
        throw VifError("\(error)")
      }
      return link
    }

    func log(_ severity: DeviceSeverity, _ message: String, about vif: DeviceAddress) {
      daemon.log.withLock { $0.append("\(severity) \(vif): \(message)") }
    }

    func forgetVif(_ vif: DeviceAddress) { vifs[vif] = nil }
  }
}

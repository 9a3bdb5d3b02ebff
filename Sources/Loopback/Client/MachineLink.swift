import Glibc
import RingKit
import Synchronization

/// Why a call on the machine failed.
struct MachineFailure: Error {
  /// What the machine said; nil when it did not answer.
  let refusal: MachineRefusal?
  /// The error number that Xen's devices would give for it.
  let errno: Int32
}

/// A domain's connection to the machine: one request, one reply.
final class MachineLink: Sendable {
  // A release closure may run on another thread than the handle's own, hence the lock; it is never held
  // longer than one exchange.
  private let socket: Mutex<PacketSocket?>

  /// Seconds to wait for an answer; the machine answers in microseconds or not at all.
  private static var patience: Int { 10 }

  /// Connects to the machine of `directory` as `domain`.
  init(directory: String, domain: DomainID) throws(HostError) {
    let path = LoopbackMachine.socketPath(in: directory)
    do {
      socket = Mutex(try PacketSocket.connect(to: path, giveUpAfter: Self.patience))
    } catch {
      throw HostError("no loopback machine at \(path): \(error); start one with `ringback loopback`")
    }
    do {
      _ = try call(.hello, [MachineRequest.version, UInt32(domain.rawValue)])
    } catch {
      throw HostError("the loopback machine at \(path) refuses domain \(domain) (version mismatch?)")
    }
  }

  /// Asks the machine, and returns its reply without the first word.
  func call(
    _ request: MachineRequest, _ arguments: [UInt32]
  ) throws(MachineFailure) -> PacketSocket.Packet {
    let reply: PacketSocket.Packet? = socket.withLock { socket in
      guard let open = socket else { return nil }
      do {
        try open.send([request.rawValue] + arguments, waiting: true)
        let reply = try open.receive(
          descriptorsUpTo: PacketSocket.maximumDescriptorCount, waiting: true)
        if reply == nil { socket = nil }
        return reply
      } catch {
        // A late answer would be taken for the next request's: give the connection up.
        socket = nil
        return nil
      }
    }
    guard var reply, let status = reply.words.first else {
      throw MachineFailure(refusal: nil, errno: ENOTCONN)
    }
    guard status == 0 else {
      let refusal = MachineRefusal(rawValue: status)
      throw MachineFailure(refusal: refusal, errno: Self.errno(for: refusal))
    }
    reply.words.removeFirst()
    return reply
  }

  private static func errno(for refusal: MachineRefusal?) -> Int32 {
    switch refusal {
    case .unknownDomain: ESRCH
    case .badReference, .badPort: EINVAL
    case .readOnly: EACCES
    case .noSpace: ENOSPC
    case .exhausted: ENOMEM
    case .malformed, nil: EPROTO
    }
  }
}

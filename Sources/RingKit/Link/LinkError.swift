import Glibc

/// Why a network interface cannot be had or changed: which, what is wrong, and what to do.
public struct LinkError: Error, Equatable, CustomStringConvertible {
  /// What kind of trouble it is.
  public enum Reason: Equatable, Sendable {
    /// The kernel has no TUN/TAP driver, or the container shows no device node of it.
    case noTunDevice
    /// This process may not do it.
    case permission
    /// A name the kernel does not take.
    case badName
    /// Another interface has the name; what it is, where that is known.
    case taken(LinkStatus?)
    /// It is no TAP with several queues, as this program makes them.
    case notOurKind(String)
    /// A program has it open.
    case inUse(queueCount: Int)
    /// It is not there any more.
    case gone
    /// It has as many queues as the kernel allows.
    case tooManyQueues
    /// The calling thread is in another network namespace than the interface.
    case otherNamespace
    /// The kernel does not know what was asked for: what that is, and what is needed.
    case unknownToKernel(String)
    /// Text too long for an alias.
    case aliasTooLong
    /// What the kernel answered is malformed.
    case badAnswer
    /// Another failure: the call and error number.
    case system(SystemError)
  }

  /// The interface as it was named.
  public let link: String
  /// The kind of trouble.
  public let reason: Reason

  /// Joins an interface and a reason.
  public init(link: String, reason: Reason) {
    self.link = link
    self.reason = reason
  }

  /// Sorts the error number of a call on an interface that was there.
  init(link: String, call: String, errno code: Int32) {
    self.link = link
    switch code {
    case EPERM, EACCES: reason = .permission
    // EBADFD: a TAP's descriptor whose interface was deleted (drivers/net/tun.c).
    case ENODEV, EBADFD: reason = .gone
    case E2BIG: reason = .tooManyQueues
    default: reason = .system(SystemError(call: call, errno: code))
    }
  }

  /// "name: what is wrong; what to do".
  public var description: String {
    switch reason {
    case .noTunDevice:
      "\(link): this machine has no /dev/net/tun; run `modprobe tun` (in a container, pass the device in)"
    case .permission:
      "\(link): permission denied; run as root, or with the capability CAP_NET_ADMIN and access to /dev/net/tun"
    case .badName:
      "\(link): the kernel takes no such interface name; use 1 to 15 bytes without space, '/', ':' and '%'"
    case .taken(let holder):
      "\(link): \(Self.words(for: holder)) has this name; rename or delete it (`ip link delete \(link)`)"
    case .notOurKind(let kind):
      "\(link): is \(kind), not a TAP of several queues; choose another name, or delete it"
        + " (`ip link delete \(link)`)"
    case .inUse(let queueCount):
      "\(link): a program has \(queueCount) of its queues open; stop that program (`fuser -v /dev/net/tun`)"
    case .gone: "\(link): the interface was deleted; attach its device again"
    case .tooManyQueues: "\(link): it has 256 queues, which is all a TAP can have; ask for fewer queues"
    case .otherNamespace:
      "\(link): is in another network namespace than this thread; open its queues where it was made"
    case .unknownToKernel(let what): "\(link): \(what)"
    case .aliasTooLong: "\(link): the text for its alias is too long; use at most 255 bytes"
    case .badAnswer: "\(link): the kernel's answer is malformed; report it with the kernel's version"
    case .system(let failure): "\(link): \(failure)"
    }
  }

  private static func words(for holder: LinkStatus?) -> String {
    guard let holder else { return "another interface" }
    guard let tun = holder.tun else {
      return holder.kind.isEmpty ? "another interface" : "an interface of the kind \(holder.kind)"
    }
    let kind = tun.isTap ? "a TAP" : "a TUN device"
    switch tun.queueCount {
    case .some(0): return "\(kind) that no program has open"
    case .some(let count): return "\(kind) that a program has open (queues: \(count))"
    case nil: return "\(kind) of another program"
    }
  }
}

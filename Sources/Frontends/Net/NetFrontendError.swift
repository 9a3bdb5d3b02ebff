public import Netback
public import RingKit

/// What a backend did that it must not. It breaks the queue, as it has a hardened Linux netfront disable the
/// interface (xen-netfront.c since 5.16) or drop the packet.
public enum NetViolation: Error, Equatable, Sendable, CustomStringConvertible {
  /// A producer that no rule allows ("Illegal number of responses").
  case ring(RingError)
  /// A transmit response whose name no request can have ("Response has incorrect id").
  case transmitIDOutOfRange(NetTxResponse)
  /// A transmit response to a request that is not in flight ("Response for inactive request").
  case transmitIDNotInUse(NetTxResponse)
  /// More NULL statuses than there were slots with extra infos.
  case unexpectedNull(NetTxResponse)
  /// A transmit status that netif.h does not have.
  case unknownStatus(NetTxResponse)
  /// A receive response that names another request than stood in its slot.
  case receiveIDMismatch(NetRxResponse, expected: UInt16)
  /// Data that would end beyond its page.
  case receiveBeyondPage(NetRxResponse)
  /// A packet whose last published slot says that more follow ("Need more slots").
  case receiveIncomplete(slots: Int)
  /// More slots than Linux's netfront takes ("Too many slots").
  case receiveTooManySlots(Int)
  /// A second slot for a frontend without feature-sg.
  case receiveUnofferedSlots
  /// Fewer bytes than an Ethernet header, or more than a packet can have.
  case receiveByteCount(Int)
  /// An extra info that does not follow although it was announced ("Missing extra info").
  case extraMissing
  /// A type that does not exist ("Invalid extra type").
  case extraType(UInt8)
  /// Segmentation with no bytes in a segment or of no known protocol ("GSO size must not be zero", "Bad GSO
  /// type").
  case segmentation(NetExtraInfo)
  /// Segmentation that this frontend has not offered.
  case unofferedSegmentation(NetExtraInfo)
  /// A blank checksum of a protocol family for which this frontend has not offered that.
  case unofferedChecksum(NetRxFlags)
  /// Headroom other than what was asked for.
  case headroom(told: UInt16, asked: Int, offset: UInt16)
  /// A hash, and the backend was never told an algorithm.
  case unaskedHash(NetHash?)
  /// A control response to no request that is in flight.
  case controlIDNotInUse(NetControlResponse)
  /// A control response that names another type than its request.
  case controlType(NetControlResponse, asked: NetControlType)
  /// A control status that netif.h does not have.
  case controlStatus(NetControlResponse)

  /// What the backend did.
  public var description: String {
    switch self {
    case .ring(let error): error.description
    case .transmitIDOutOfRange(let response):
      "the backend answered transmit id \(response.id), which no request can have"
    case .transmitIDNotInUse(let response):
      "the backend answered transmit id \(response.id) (status \(response.status.rawValue)), which is not in "
        + "flight"
    case .unexpectedNull(let response):
      "the backend answered status NULL (id \(response.id)) for no extra info"
    case .unknownStatus(let response):
      "the backend answered status \(response.status.rawValue) to transmit id \(response.id)"
    case .receiveIDMismatch(let response, let expected):
      "a receive response has id \(response.id) in the slot of the request with id \(expected)"
    case .receiveBeyondPage(let response):
      "a receive response has \(response.status) bytes at offset \(response.offset) of a page"
    case .receiveIncomplete(let slots):
      "a received packet says that more follows its \(slots) slots, and nothing was published"
    case .receiveTooManySlots(let slots): "a received packet has \(slots) data slots"
    case .receiveUnofferedSlots: "a received packet has several slots, and feature-sg is not offered"
    case .receiveByteCount(let count): "a received packet has \(count) bytes"
    case .extraMissing: "an announced extra info does not follow"
    case .extraType(let type): "an extra info has type \(type), which does not exist"
    case .segmentation(let extra):
      "a packet is to be segmented by type \(extra.segmentationType.rawValue) into \(extra.segmentSize) bytes"
    case .unofferedSegmentation(let extra):
      "a packet is to be segmented by type \(extra.segmentationType.rawValue), which is not offered"
    case .unofferedChecksum(let flags):
      "a packet has a blank checksum (flags \(flags.rawValue)), which is not offered for its protocol"
    case .headroom(let told, let asked, let offset):
      "a packet has \(told) bytes of headroom at offset \(offset), \(asked) were asked for"
    case .unaskedHash: "a packet has a hash, and no algorithm was set"
    case .controlIDNotInUse(let response):
      "the backend answered control id \(response.id), which is not in flight"
    case .controlType(let response, let asked):
      "the backend answered type \(response.type.rawValue) to the control request of type \(asked.rawValue)"
    case .controlStatus(let response):
      "the backend answered a control request with status \(response.status)"
    }
  }
}

/// Why a network frontend cannot go on.
public enum NetFrontendError: Error, CustomStringConvertible {
  /// A facility of the host is missing.
  case host(HostError)
  /// The backend, its nodes or its state.
  case directory(FrontendDirectoryError)
  /// Pages could not be shared.
  case grant(GrantError)
  /// An event channel failed.
  case events(EventChannelError)
  /// A system call failed.
  case system(SystemError)
  /// The backend does not copy received data, which Linux's netfront needs too.
  case noReceiveCopy(path: String)
  /// The frontend's `mac` is none; Linux's netfront does not start then.
  case badAddress(path: String, value: String)
  /// The device is not connected.
  case notConnected
  /// The backend does not have what is asked for.
  case notOffered(String)
  /// The backend broke the rules, in the queue of that number, or on the control ring (nil).
  case violation(NetViolation, queue: Int?)
  /// A control request ended with an error (``NetControlStatus`` gives the names).
  case refused(NetControlType, status: UInt32)
  /// No answer within the time allowed.
  case stalled(String, milliseconds: Int)

  /// What happened, where, and what to look at.
  public var description: String {
    switch self {
    case .host(let error): error.description
    case .directory(let error): error.description
    case .grant(let error): error.description
    case .events(let error): error.description
    case .system(let error): error.description
    case .noReceiveCopy(let path): "\(path)/feature-rx-copy is not 1: this backend cannot be used"
    case .badAddress(let path, let value):
      "\(path) is \"\(value)\", expected an Ethernet address such as 00:16:3e:01:02:03"
    case .notConnected: "the interface is not connected"
    case .notOffered(let feature): "the backend does not offer \(feature)"
    case .violation(let violation, let queue):
      queue.map { "queue \($0): \(violation)" } ?? "control ring: \(violation)"
    case .refused(let type, let status):
      "the backend answered control request \(type.rawValue) with status \(status)"
    case .stalled(let what, let milliseconds): "no \(what) within \(milliseconds) ms"
    }
  }
}

import RingKit

/// A slot that was taken and not yet answered, judged only where noted.
struct NetTxSlot: BitwiseCopyable {
  /// The granted page; means nothing in the slot of an extra info.
  var reference: GrantReference
  /// First byte in the page.
  var pageOffset: UInt16
  /// Bytes in this slot: of the packet's first one only once the others are known. In a packet that goes on,
  /// `pageOffset + byteCount` is within the page.
  var byteCount: UInt16
  /// What the response echoes.
  var id: UInt16
  /// How it will be answered, as things stand.
  var status: NetStatus
  /// The place of its grant copy in this turn's batch, plus 1; 0 without one.
  var copy: UInt16 = 0
}

/// A packet that passed all checks which need no data.
struct NetTxPacket: BitwiseCopyable {
  /// Counter of its first slot.
  var firstSlot: UInt32
  /// Slots, those of extra infos among them: 1...256.
  var slotCount: UInt16
  /// Bytes of the frame, 14...65535.
  var byteCount: UInt16
  /// Flags of its first request.
  var flags: NetTxFlags
  /// True once the host let it pass.
  var isCharged = false
  /// How it is to be segmented, if it is.
  var segmentation: NetExtraInfo?
  /// Its hash, if the frontend told one.
  var hash: NetHash?
  /// The frame's place in the buffer.
  var start = 0
  /// The memory, once there is some: for all of the frame, whether or not all comes.
  var buffer: IOBuffer?
  /// How far it is in its turn.
  var progress = Progress.copied
  /// The way that it goes, if it goes past private memory.
  var path: NetDirectPath?

  /// What became of a packet between its copies and its forwarding.
  enum Progress: UInt8 {
    /// What was to be copied is copied.
    case copied
    /// Its buffer was given back, and its slots' answers stand.
    case dropped
    /// It goes from page to page.
    case direct
    /// Only its first bytes are copied.
    case partial
    /// The host has it.
    case forwarded
  }

  init(firstSlot: UInt32, request: NetTxRequest) {
    self.firstSlot = firstSlot
    slotCount = 1
    byteCount = request.size
    flags = request.flags
  }
}

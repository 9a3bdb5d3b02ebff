import CUring
import Glibc

/// The calls of /dev/net/tun (linux/if_tun.h) on one descriptor, which they do not own.
@safe
struct TunControl {
  /// `struct ifreq` of a 64-bit kernel: a name of 16 bytes and a union of 24, of which 16 bits of flags are used.
  private struct InterfaceRequest {
    var name: (UInt64, UInt64) = (0, 0)
    var flags: UInt16 = 0
    var rest: (UInt16, UInt32, UInt64, UInt64) = (0, 0, 0, 0)
  }

  // _IOW('T', number, int) and _IOR('T', number, int) as x86 and Arm encode them.
  private static func write(_ number: UInt) -> UInt { 0x4004_5400 | number }
  private static func read(_ number: UInt) -> UInt { 0x8004_5400 | number }

  /// Flags of TUNSETIFF: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE.
  static let tapFlags: UInt16 = 0x0002 | 0x1000 | 0x4000 | 0x0100
  /// IFF_TUN_EXCL: not an interface that exists already.
  static let exclusive: UInt16 = 0x8000
  /// IFF_NO_CARRIER: the carrier is off afterwards, else on.
  static let noCarrier: UInt16 = 0x0040
  /// IFF_DETACH_QUEUE, of TUNSETQUEUE.
  static let detachQueue: UInt16 = 0x0400

  let descriptor: Int32

  /// Opens a descriptor that is no queue yet.
  static func open(link: String) throws(LinkError) -> Int32 {
    let fd = unsafe Glibc.open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)
    if fd >= 0 { return fd }
    switch errno {
    case ENOENT, ENOTDIR, ENODEV, ENXIO: throw LinkError(link: link, reason: .noTunDevice)
    case let code: throw LinkError(link: link, call: "open(/dev/net/tun)", errno: code)
    }
  }

  /// TUNGETFEATURES: the flags of TUNSETIFF that this kernel knows; 0 when it does not say.
  var features: UInt16 {
    var features: UInt32 = 0
    // Sound: the kernel fills the local variable.
    return unsafe ioctl(descriptor, Self.read(207), &features) == 0 ? UInt16(truncatingIfNeeded: features) : 0
  }

  /// TUNSETIFF: makes the descriptor a queue of the interface; 0, or the error number.
  func attach(name: String, flags: UInt16) -> Int32 {
    var request = InterfaceRequest()
    request.flags = flags
    // Sound: 15 bytes at most go into 16, and the structure is the kernel's for the call.
    unsafe withUnsafeMutableBytes(of: &request) { unsafe $0.copyBytes(from: name.utf8.prefix(15)) }
    return unsafe ioctl(descriptor, Self.write(202), &request) == 0 ? 0 : errno
  }

  /// TUNGETIFF: the name that the queue's interface has now; nil and errno once it was deleted.
  var name: String? {
    var request = InterfaceRequest()
    // Sound: the kernel fills the structure, which ends the name with a zero.
    guard unsafe ioctl(descriptor, Self.read(210), &request) == 0 else { return nil }
    return unsafe withUnsafeBytes(of: &request) {
      unsafe String(decoding: $0.prefix(15).prefix { $0 != 0 }, as: UTF8.self)
    }
  }

  /// TUNSETQUEUE: the kernel gives this queue no more frames, whoever still holds the descriptor.
  func detachQueue() {
    var request = InterfaceRequest()
    request.flags = Self.detachQueue
    // Sound: the kernel reads the structure during the call.
    _ = unsafe ioctl(descriptor, Self.write(217), &request)
  }

  /// Settings that the kernel reads through a pointer: TUNSETVNETHDRSZ, TUNSETVNETLE, TUNSETCARRIER.
  func set(_ setting: PointedSetting, to value: Int32) -> Int32 {
    var value = value
    // Sound: the kernel reads the local variable during the call.
    return unsafe ioctl(descriptor, Self.write(setting.rawValue), &value) == 0 ? 0 : errno
  }

  /// Settings that are the argument itself: TUNSETOFFLOAD, TUNSETPERSIST.
  func set(_ setting: DirectSetting, to value: Int32) -> Int32 {
    ioctl(descriptor, Self.write(setting.rawValue), value) == 0 ? 0 : errno
  }

  enum PointedSetting: UInt {
    case headerByteCount = 216
    case headerIsLittleEndian = 220
    case carrier = 226
  }

  enum DirectSetting: UInt {
    case isPersistent = 203
    case offloads = 208
  }
}

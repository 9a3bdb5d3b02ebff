public import RingKit

/// What kind of image a disk is made of. There is no probing: a guest writes these bytes, so they never
/// decide how they are read (XSA-48's class).
public enum ImageFormat: String, Sendable, CaseIterable {
  /// The file's or device's bytes are the disk's bytes.
  case raw
  /// A disk that forgets what is written and reads as zeros, for measurements. Its path is a size.
  case null
  /// A disk in memory that is gone when it is detached, for tests and measurements. Its path is a size.
  case memory

  /// Bytes of a disk without a file: a decimal number, with K, M or G for 2^10, 2^20 or 2^30 of them. Nil for
  /// anything else, and for what is no positive multiple of 4096.
  public static func byteCount(_ text: String) -> UInt64? {
    let shifts: [Character: UInt64] = ["K": 10, "M": 20, "G": 30]
    let shift = text.last.flatMap { shifts[$0] }
    let digits = shift == nil ? text : String(text.dropLast())
    guard let number = StoreValue.decimal(digits, in: 1...UInt64(1) << 40) else { return nil }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
    return overflow || bytes % 4096 != 0 || bytes > 1 << 50 ? nil : bytes
  }
}

/// One disk as the toolstack describes it in `backend/<kind>/<domid>/<devid>` (blkif.h, "Backend XenBus
/// Nodes").
public struct VbdConfiguration: Equatable, Sendable {
  /// How the image is to be read.
  public var format: ImageFormat
  /// The image's path.
  public var imagePath: String
  /// False when `mode` has no "w".
  public var isWritable: Bool
  /// True for `device-type` cdrom.
  public var isCDROM: Bool
  /// True when the toolstack set `removable`.
  public var isRemovable: Bool

  /// Reads and checks the description in the device's directory.
  public static func read(
    from store: any StoreAccess, directory: String
  ) throws(VbdError) -> VbdConfiguration {
    do {
      let mode = try store.read("\(directory)/mode") ?? "w"
      guard ["r", "w", "w!"].contains(mode) else {
        throw VbdError("\(directory)/mode is \"\(mode)\"; it has to be r, w or w!")
      }
      guard let parameters = try store.read("\(directory)/params"), !parameters.isEmpty else {
        throw VbdError(
          "\(directory)/params is missing; it names the image, as in \"aio:/srv/disk.img\" (an empty drive is not served)"
        )
      }
      let (format, path) = try image(parameters, node: "\(directory)/params")
      return VbdConfiguration(
        format: format, imagePath: path, isWritable: mode != "r",
        isCDROM: try store.read("\(directory)/device-type") == "cdrom",
        isRemovable: try store.flag("\(directory)/removable", default: false))
    } catch let error as VbdError {
      throw error
    } catch {
      throw VbdError("\(error)")
    }
  }

  /// Splits `params`: libxl writes "<format>:<path>" for tap and a bare path for phy.
  private static func image(_ parameters: String, node: String) throws(VbdError) -> (ImageFormat, String) {
    if parameters.hasPrefix("/") { return (.raw, parameters) }
    guard let colon = parameters.firstIndex(of: ":") else {
      throw VbdError("\(node) is \"\(parameters)\"; it has to be FORMAT:/PATH or an absolute path")
    }
    let name = parameters[..<colon]
    let path = String(parameters[parameters.index(after: colon)...])
    if let format = ImageFormat(rawValue: String(name)), format != .raw {
      guard ImageFormat.byteCount(path) != nil else {
        throw VbdError(
          "\(node) gives the size \"\(path)\"; it has to be a multiple of 4096 bytes, such as 64M")
      }
      return (format, path)
    }
    guard path.hasPrefix("/") else {
      throw VbdError("\(node) names the image \"\(path)\"; the path has to be absolute")
    }
    switch name {
    case "raw", "aio", "phy", "file": return (.raw, path)
    default:
      throw VbdError(
        "\(node) asks for the image format \"\(name)\"; this version serves raw images (raw: or aio:)")
    }
  }
}

public import RingKit

/// What kind of image a disk is made of. There is no probing: a guest writes these bytes, so they never
/// decide how they are read (XSA-48's class).
public enum ImageFormat: String, Sendable, CaseIterable {
  /// The file's or device's bytes are the disk's bytes.
  case raw
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

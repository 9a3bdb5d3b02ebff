public import RingKit

/// What kind of image a disk is made of. There is no probing: a guest writes these bytes, so they never decide
/// how they are read (XSA-48's class).
public enum ImageFormat: String, Sendable, CaseIterable {
  /// The file's or device's bytes are the disk's bytes.
  case raw
}

/// One disk as the toolstack describes it in `backend/<kind>/<domid>/<devid>` (blkif.h, "Backend XenBus Nodes").
public struct VbdConfiguration: Equatable, Sendable {
  /// The domain that the disk is for; its grants and no other's are used.
  public var domain: DomainID
  /// The disk's number in that domain.
  public var device: VirtualDevice
  /// The frontend's directory.
  public var frontendPath: String
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
  /// True when a hotplug script is to finish before the disk may connect: libxl runs it only after it has seen
  /// InitWait (libxl_device.c, device_hotplug), so the disk stays there until `hotplug-status` is "connected".
  public var waitsForHotplug: Bool

  /// Reads and checks the description of the device at `directory`.
  public static func read(
    from store: any StoreAccess, directory: String, domain: DomainID, device: VirtualDevice
  ) throws(VbdError) -> VbdConfiguration {
    do {
      let frontendID = try store.decimal("\(directory)/frontend-id", in: 0...DomainID.highestOrdinary.rawValue)
      guard frontendID == domain.rawValue else {
        throw VbdError(
          "\(directory)/frontend-id is \(frontendID), but the device stands under domain \(domain); "
            + "the toolstack wrote an inconsistent device")
      }
      let frontend = try store.text("\(directory)/frontend")
      guard frontend.hasPrefix("/local/domain/\(domain)/") else {
        throw VbdError(
          "\(directory)/frontend is \"\(frontend)\", which is not below /local/domain/\(domain)/; "
            + "a disk serves only the domain it stands under")
      }
      let mode = try store.read("\(directory)/mode") ?? "w"
      guard ["r", "w", "w!"].contains(mode) else {
        throw VbdError("\(directory)/mode is \"\(mode)\"; it has to be r, w or w!")
      }
      guard let parameters = try store.read("\(directory)/params"), !parameters.isEmpty else {
        throw VbdError(
          "\(directory)/params is missing; it names the image, as in \"aio:/srv/disk.img\" (an empty drive is not served)")
      }
      let (format, path) = try image(parameters, node: "\(directory)/params")
      return VbdConfiguration(
        domain: domain, device: device, frontendPath: frontend, format: format, imagePath: path,
        isWritable: mode != "r",
        isCDROM: try store.read("\(directory)/device-type") == "cdrom",
        isRemovable: try store.flag("\(directory)/removable", default: false),
        waitsForHotplug: try store.read("\(directory)/script").map { !$0.isEmpty } ?? false)
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
      throw VbdError("\(node) asks for the image format \"\(name)\"; this version serves raw images (raw: or aio:)")
    }
  }
}

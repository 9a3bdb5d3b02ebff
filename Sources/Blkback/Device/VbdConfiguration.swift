public import RingKit

/// One disk as the toolstack describes it in `backend/<kind>/<domid>/<devid>` (blkif.h, "Backend XenBus
/// Nodes"), with the nodes of our own that a toolstack may add. It is read when the disk is published first;
/// of what is changed later only `params` of a drive, and the limits, are followed.
///
/// Not acted on, whatever they hold: `bootable`, `dev`, `type` and `specification`, which are the toolstack's
/// own; and `direct-io-safe`. That one permits direct I/O in mapped guest pages to a kernel that might give a
/// page back to the guest while a network card still sends it (xen-devel, December 2012). Here a page is
/// either copied, or mapped through gntdev, which since Linux 4.0 does not let go of a page that anybody still
/// refers to (gntdev.c, unmap_grant_pages; grant-table.c, gnttab_unmap_refs_async); so direct I/O is used in
/// both cases.
public struct VbdConfiguration: Equatable, Sendable {
  /// Node `params`: the image as "PREFIX:LOCATION" (``StoreTable``) or an absolute path. Empty for a drive
  /// without a medium, which only a CD-ROM or removable disk can be; libxl's "empty:" means the same.
  public var image: String
  /// Node `mode`: false for "r", true for "w", "w!" and when it is absent. A CD-ROM is never writable.
  public var isWritable: Bool
  /// Node `mode` is "w!": other writers of the image are expected.
  public var isShared: Bool
  /// Node `device-type` is "cdrom".
  public var isCDROM: Bool
  /// Node `removable` is 1: the medium may be changed.
  public var isRemovable: Bool
  /// Node `discard-enable`: false for 0. Ranges are then not given back to the medium, whatever the guest
  /// asks.
  public var allowsDiscard: Bool
  /// Our own node `discard-mode`: what becomes of those ranges, "unmap" (the default) or "zeroes".
  public var discardMode = DiscardMode.unmap
  /// Whether the host's page cache is bypassed. Of no node: whoever opens the image says so.
  public var direct = DirectPolicy.preferred
  /// Our own node `logical-sector-size`: the sector that the guest is shown, in bytes, a power of two from 512
  /// (the default, right for every guest and medium) to 4096.
  public var logicalSectorByteCount: Int
  /// Our own node `paused` is 1: the image is not to be touched before the disk is resumed. Written by the
  /// daemon.
  public var isPaused: Bool

  /// True for a drive without a medium.
  public var isEmpty: Bool { image.isEmpty }

  /// True where media come and go.
  public var canChangeMedium: Bool { isCDROM || isRemovable }

  /// Reads and checks the description in the device's directory. Where `params` names no image, as with xenopsd,
  /// `imageAtSocket` is asked about the node `physical-device-path`.
  public static func read(
    from store: any StoreAccess, directory: String, imageAtSocket: (String) -> String? = { _ in nil }
  ) throws(VbdError) -> VbdConfiguration {
    do {
      let mode = try store.read("\(directory)/mode") ?? "w"
      guard ["r", "w", "w!"].contains(mode) else {
        throw VbdError("\(directory)/mode is \"\(mode)\"; it has to be r, w or w!")
      }
      let isCDROM = try store.read("\(directory)/device-type") == "cdrom"
      let isRemovable = try store.flag("\(directory)/removable", default: false)
      let sectorPath = "\(directory)/logical-sector-size"
      let sector = try store.decimal(sectorPath, in: 512...4096, default: 512)
      guard sector.nonzeroBitCount == 1 else {
        throw VbdError("\(sectorPath) is \(sector); it has to be 512, 1024, 2048 or 4096")
      }
      var configuration = VbdConfiguration(
        image: "", isWritable: mode != "r" && !isCDROM, isShared: mode == "w!", isCDROM: isCDROM,
        isRemovable: isRemovable, allowsDiscard: try store.flag("\(directory)/discard-enable", default: true),
        logicalSectorByteCount: sector, isPaused: try store.flag("\(directory)/paused", default: false))
      if let name = try store.read("\(directory)/discard-mode") {
        guard let mode = DiscardMode(rawValue: name), mode != .off else {
          throw VbdError("\(directory)/discard-mode is \"\(name.prefix(64))\"; it has to be unmap or zeroes")
        }
        configuration.discardMode = mode
      }
      configuration.image = try configuration.checkImage(
        parameters(in: store, directory: directory, imageAtSocket: imageAtSocket), directory: directory)
      return configuration
    } catch let error as VbdError {
      throw error
    } catch {
      throw VbdError("\(error)")
    }
  }

  /// What `params` says, or what it means.
  static func parameters(
    in store: any StoreAccess, directory: String, imageAtSocket: (String) -> String?
  ) throws(StoreError) -> String {
    let parameters = try store.read("\(directory)/params") ?? ""
    // A bare path is what XenServer's storage manager calls the disk, not what is to be opened.
    let isUsable = !parameters.hasPrefix("/") && (try? StoreTable.parse(parameters)) != nil
    guard !isUsable, let socket = try store.read("\(directory)/physical-device-path") else {
      return parameters
    }
    return imageAtSocket(socket) ?? parameters
  }

  /// Checks what `params` says, or is to say; gives it as ``image`` has it.
  func checkImage(_ parameters: String, directory: String) throws(VbdError) -> String {
    guard !parameters.isEmpty, parameters != "empty:", parameters != "empty" else {
      guard canChangeMedium else {
        throw VbdError(
          "\(directory)/params is missing; it names the image, as in \"aio:/srv/disk.img\" (only a drive "
            + "that is a CD-ROM or removable can be empty)")
      }
      return ""
    }
    do throws(VbdError) {
      _ = try StoreTable.parse(parameters)
    } catch {
      throw VbdError("\(directory)/params: \(error)")
    }
    return parameters
  }

  /// Opens the image. Control thread; may block shortly.
  public func openStore() throws(VbdError) -> any BlockStore {
    guard !isEmpty else { return EmptyStore() }
    let (kind, location) = try StoreTable.parse(image)
    guard discardMode != .zeroes || kind.canZero else {
      throw VbdError(
        "\(image) cannot be told to zero what the guest gives back; set discard-mode to unmap")
    }
    var request = StoreRequest(
      location: location, isReadOnly: !isWritable, isShared: isShared, direct: direct)
    request.discardMode = allowsDiscard ? discardMode : .off
    return try kind.open(request)
  }
}

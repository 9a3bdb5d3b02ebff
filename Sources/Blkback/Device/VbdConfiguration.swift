public import RingKit

/// One disk as the toolstack describes it in `backend/<kind>/<domid>/<devid>` (blkif.h, "Backend XenBus
/// Nodes").
public struct VbdConfiguration: Equatable, Sendable {
  /// The image as `params` names it: "PREFIX:LOCATION" (``StoreTable``) or an absolute path.
  public var image: String
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
      do throws(VbdError) {
        _ = try StoreTable.parse(parameters)
      } catch {
        throw VbdError("\(directory)/params: \(error)")
      }
      return VbdConfiguration(
        image: parameters, isWritable: mode != "r",
        isCDROM: try store.read("\(directory)/device-type") == "cdrom",
        isRemovable: try store.flag("\(directory)/removable", default: false))
    } catch let error as VbdError {
      throw error
    } catch {
      throw VbdError("\(error)")
    }
  }

  /// Opens the image. Control thread; may block shortly.
  func openStore() throws(VbdError) -> any BlockStore {
    let (kind, location) = try StoreTable.parse(image)
    return try kind.open(StoreRequest(location: location, isReadOnly: !isWritable))
  }
}

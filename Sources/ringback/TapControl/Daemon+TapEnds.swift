import Blkback
import Logging
import RingKit

/// The end of taps that nobody will destroy.
extension Daemon {
  /// Ends the taps that were opened for guests' disks when no disk of theirs is left in xenstore. Xen's block-tap
  /// destroys the tap of a disk that goes, but not if the daemon was away at that time, and not if it counted
  /// another disk that was refused the image. Taps that were opened before any disk are the storage manager's.
  func endTapsWithoutDisks() {
    let candidates = taps.table.taps.filter {
      $0.image.map { $0.isForDisks == true && users(of: $0.name).isEmpty } ?? false
    }
    guard !candidates.isEmpty else { return }
    do throws(StoreError) {
      let named = try imagesInStore()
      for tap in candidates {
        guard let image = tap.image, let identity = ImageIdentity(image.name), !named.contains(identity)
        else {
          // Its disk is on the way out, or nobody detaches it.
          noteGone()
          continue
        }
        end(tap, image)
      }
    } catch {
      logger.warning("which taps are still needed cannot be told: \(error)")
      noteGone()
    }
  }

  /// The images that all disks in the store name, served or not.
  private func imagesInStore() throws(StoreError) -> Set<ImageIdentity> {
    var images: Set<ImageIdentity> = []
    for address in directory.devices {
      let path = "\(directory.path(of: address.kind))/\(address.domain)/\(address.device)"
      if let name = try store.read("\(path)/params"), let image = ImageIdentity(name) { images.insert(image) }
    }
    return images
  }

  private func end(_ tap: Tap, _ image: TapImage) {
    taps.door?.close(minor: tap.minor)
    dropHold(tap.minor)
    unlink(tap)
    do throws(TapError) {
      try taps.change { (table) throws(TapError) in
        try table.close(tap.minor)
        try table.detach(tap.minor)
        try table.free(tap.minor)
      }
      logger.info("tap \(tap.minor) of \(image.name) ends: no disk of a guest needs it any longer")
    } catch {
      logger.warning("tap \(tap.minor): \(error)")
    }
  }
}

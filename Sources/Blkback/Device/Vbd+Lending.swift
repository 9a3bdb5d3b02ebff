import RingKit

/// Letting go of the image while no ring uses it, so that others may: who comes over NBD, or the device model
/// of a guest that boots from the emulated disk. The frontend's nodes stay as they are; when it connects, the
/// image is opened again.
extension Vbd {
  /// Lets go of the image. `done` is called once, on the control thread, when nothing of ours touches it any
  /// longer; its error is that a ring uses it, or that the disk is paused, and then nothing has changed.
  public func lend(done: @escaping (VbdError?) -> Void) {
    command { [self] in
      guard connection == nil else {
        return finish { done(VbdError("the guest's frontend is connected to the disk \(identity)")) }
      }
      guard !isPaused else { return finish { done(VbdError("the disk \(identity) is paused")) } }
      // One that has stepped aside has nothing open and stays as it is.
      let wasOpen = image != nil
      closeImage { [self] in finish { done(nil) } }
      if wasOpen { isLent = true }
    } cancel: {
      done($0)
    }
  }

  /// Opens the image again and claims it, and tells the frontend when it is another size by now. Where that
  /// fails it is tried again when the frontend connects.
  public func takeBack() {
    guard isLent, image == nil, isConnectionStable, !commands.isBusy else { return }
    guard !stepsAside else {
      claim = try? configuration?.claim()
      return
    }
    let before = properties
    do throws(VbdError) {
      if try knownProperties() != before { try publishAgain() }
    } catch {
      environment.log(
        .warning,
        "the image that was lent is not to be had: \(error); it is tried again when a ring needs it",
        about: identity)
    }
  }

  /// For a disk that a device model may want to use before the guest's own driver does: the image was opened
  /// to see that it is good, and is let go until a ring needs it. A claim is left that keeps out whoever would
  /// have it for himself, as other disks of ours, and lets in QEMU, which allows readers.
  ///
  /// libxl gives QEMU the path itself of a raw image (libxl_disk.c, libxl__device_disk_find_local_path), and
  /// starts it while we are in InitWait; QEMU does not start when it cannot lock the image.
  func stepAside() {
    guard stepsAside, image != nil, connection == nil, isConnectionStable, let configuration else { return }
    environment.log(
      .information, "the image is left to the device model until a ring needs it", about: identity)
    image = nil
    isLent = true
    claim = try? configuration.claim()
  }

  /// True for a raw image of a guest that may have a device model. libxl tells a PV guest, which has none, the
  /// protocol of its ring when it makes the disk (libxl_disk.c, device_disk_add); to others it does not.
  private var stepsAside: Bool {
    guard identity.kind == Self.tapKind, let nodes, let configuration, configuration.isRawFile else {
      return false
    }
    do throws(StoreError) {
      guard try waitsForHotplug(nodes) else { return false }
      return try environment.store.read("\(nodes.frontendDirectory)/protocol") == nil
    } catch {
      return false
    }
  }

  /// What libxl calls disks with backendtype=tap.
  private static var tapKind: String { "vbd3" }
}

extension VbdConfiguration {
  /// True when the image's bytes are the disk's.
  fileprivate var isRawFile: Bool {
    guard let (kind, _) = try? StoreTable.parse(image) else { return false }
    return kind.prefixes == StoreKind.file.prefixes
  }

  /// Opens the image so that nobody may have it for himself alone.
  fileprivate func claim() throws(VbdError) -> StorageFile {
    let (_, path) = try StoreTable.parse(image)
    do throws(StorageError) {
      return try StorageFile.open(
        path: path, readOnly: true, direct: .never, sharing: .everybody, patienceNanoseconds: 0)
    } catch {
      throw VbdError(error)
    }
  }
}

import Glibc
import RingKit
import Testing

/// Claims on block devices, which the kernel keeps too: needs the right to make a loop device.
@Suite struct ImageLockDeviceTests {
  func open(_ path: String, _ readOnly: Bool, _ sharing: ImageSharing?) throws(StorageError) -> StorageFile {
    try StorageFile.open(
      path: path, readOnly: readOnly, direct: .never, sharing: sharing, patienceNanoseconds: 0)
  }

  func reason(_ path: String, _ readOnly: Bool, _ sharing: ImageSharing) -> StorageError.Reason? {
    do throws(StorageError) {
      _ = try open(path, readOnly, sharing)
      return nil
    } catch { return error.reason }
  }

  @Test func aDeviceInExclusiveUseIsNotWritten() throws {
    let directory = try TemporaryDirectory()
    let device = try LoopDevice.forTest(
      try directory.file("backing", byteCount: 1 << 20), sectorByteCount: 512)
    defer { device.detach() }
    // As a mount has it: O_EXCL without any lock of ours.
    let other = unsafe Glibc.open(device.path, O_RDWR | O_EXCL | O_CLOEXEC)
    try #require(other >= 0)
    #expect(reason(device.path, false, .nobody) == .busy)
    #expect(reason(device.path, false, .everybody) == nil, "w! is for those who know")
    #expect(reason(device.path, true, .readers) == nil)
    close(other)
    #expect(reason(device.path, false, .nobody) == nil)
  }

  @Test func ourWriterKeepsOthersOffADevice() throws {
    let directory = try TemporaryDirectory()
    let device = try LoopDevice.forTest(
      try directory.file("backing", byteCount: 1 << 20), sectorByteCount: 512)
    defer { device.detach() }
    do {
      let held = try open(device.path, false, .nobody)
      #expect(held.isBlockDevice)
      #expect(unsafe Glibc.open(device.path, O_RDWR | O_EXCL | O_CLOEXEC) < 0 && errno == EBUSY)
      #expect(reason(device.path, false, .nobody) == .busy)
      #expect(reason(device.path, true, .readers) == .inUse(.writer))
      #expect(reason(device.path, false, .everybody) == .inUse(.exclusive))
    }
    #expect(reason(device.path, false, .nobody) == nil)
  }
}

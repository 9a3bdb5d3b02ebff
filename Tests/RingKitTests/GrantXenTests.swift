import Glibc
import RingKit
import Testing

/// What an administrator reads on a machine that is no Xen domain.
@Suite(.enabled(if: unsafe access("/dev/xen", F_OK) != 0, "this machine has Xen's devices"))
struct GrantXenTests {
  @Test func eachMissingDeviceIsNamedWithItsModule() {
    let host = XenHypervisor()
    let calls: [(String, String, () throws(HostError) -> Void)] = [
      ("/dev/xen/gntdev", "modprobe xen-gntdev", { () throws(HostError) in _ = try host.openGrantTable() }),
      (
        "/dev/xen/gntalloc", "modprobe xen-gntalloc",
        { () throws(HostError) in _ = try host.openGrantSharing() }
      ),
      (
        "/dev/xen/evtchn", "modprobe xen-evtchn", { () throws(HostError) in _ = try host.openEventChannels() }
      ),
    ]
    for (device, advice, open) in calls {
      let error = #expect(throws: HostError.self) { try open() }
      let text = error?.description ?? ""
      for part in [device, advice, "not a Xen domain", "--hypervisor loopback"] {
        #expect(text.contains(part), "\(part) is missing in: \(text)")
      }
    }
  }
}

import Foundation
import Logging
import Netback
import RingKit

/// Interfaces, beside the disks.
extension Daemon: VifEnvironment {
  var vifOffer: VifOffer { configuration.settings.vifOffer }
  var netBufferShareByteCount: Int { max(8 << 20, configuration.threads.poolByteCount / 4) }
  var postVif: @Sendable (DeviceAddress, VifEvent) -> Void {
    let inbox = vifs.inbox
    return { inbox.post(($0, $1)) }
  }

  func netThreads() throws(VifError) -> [DataThread<NetQueue>] {
    guard vifs.threads.isEmpty else { return vifs.threads }
    var sizes = configuration.threads
    // The least is what one queue reads ahead.
    sizes.poolByteCount = max(sizes.poolByteCount, 32 << 20)
    do throws(HostError) {
      var threads: [DataThread<NetQueue>] = []
      for number in 0..<configuration.threadCount {
        // Numbered on from the disks', so that each has a name of its own.
        threads.append(
          try DataThread(number: self.threads.count + number, hypervisor: host, configuration: sizes))
      }
      vifs.threads = threads
      pulses.add(threadCount: threads.count)
      logger.notice("interfaces have \(threads.count) data threads")
      return threads
    } catch {
      throw VifError(error)
    }
  }

  func claimNetThread(count: Int) -> Int {
    defer { vifs.nextThread = (vifs.nextThread + count) % max(1, vifs.threads.count) }
    return vifs.nextThread
  }

  /// The kernel's own backend takes every interface as it appears, before any script runs.
  var rivalOfVifs: String? {
    guard host.name == "xen", FileManager.default.fileExists(atPath: "/sys/bus/xen-backend/drivers/vif")
    else {
      return nil
    }
    return
      "the kernel's xen-netback is loaded and serves every interface of this domain, so that this one is left "
      + "to it: `rmmod xen-netback` (and `blacklist xen-netback` in /etc/modprobe.d), then detach and attach the "
      + "interface; or take kind vif away from the daemon's kinds"
  }

  func openLink(_ configuration: VifConfiguration, of vif: DeviceAddress) throws(VifError) -> any VifLink {
    switch configuration.target {
    case .tap: return try TapLink(configuration, of: vif)
    case .virtualSwitch(let name):
      let known = vifs.switches[name] ?? VirtualSwitch(name: name)
      let link = try SwitchLink(configuration, at: known)
      vifs.switches[name] = known
      return link
    }
  }

  func forgetVif(_ vif: DeviceAddress) {
    endCaptures(of: vif)
    vifs.devices[vif] = nil
    vifs.switches = vifs.switches.filter { $1.portCount > 0 }
    // Its toolstack may have made the device anew already.
    note(vif)
    tellComingOrGoing("gone", of: vif)
    dropBudget(of: vif.domain)
  }

  /// Looks at an interface's nodes, whether it is known or not.
  func lookAtVif(_ address: DeviceAddress, state: XenbusState?, isOnline: Bool) {
    if let vif = vifs.devices[address] { return vif.refresh() }
    guard !isStopping, let state, state != .closed || isOnline else { return }
    let vif = Vif(address, environment: self)
    vifs.devices[address] = vif
    tellComingOrGoing("found", of: address)
    vif.refresh()
  }

  /// Takes what data threads report of interfaces.
  func takeVifEvents() {
    for (identity, event) in vifs.inbox.take() { vifs.devices[identity]?.handle(event) }
  }

  /// Starts to hear of TAPs. Without it a daemon does not learn of a new MTU before the next connection.
  func watchLinks() {
    guard configuration.kinds.contains(DaemonVifs.kind) else { return }
    do throws(LinkError) {
      vifs.watch = try LinkWatch()
    } catch {
      logger.warning("changes of TAPs are not noticed: \(error)")
    }
  }

  /// Takes what the kernel says of interfaces.
  func takeLinkChanges() {
    guard let watch = vifs.watch else { return }
    do throws(LinkError) {
      let changes = try watch.changes()
      guard !changes.isEmpty else { return }
      for vif in Array(vifs.devices.values) {
        if !changes.mustLookAtAll, let tap = vif.link as? TapLink, !changes.indexes.contains(tap.index) {
          continue
        }
        vif.linkChanged()
      }
    } catch {
      logger.warning("changes of TAPs are not noticed: \(error)")
      vifs.watch = nil
    }
  }

  /// Once, after the first listing: takes away what earlier daemons have left of interfaces that are gone.
  func tidyLinks() {
    guard configuration.kinds.contains(DaemonVifs.kind) else { return }
    do throws(LinkError) {
      let removed = try TapLink.removeLeftovers { directory.devices.contains($0) }
      for name in removed { logger.notice("\(name), left of an interface that is gone, was removed") }
    } catch {
      logger.warning("TAPs of interfaces that are gone could not be looked for: \(error)")
    }
  }
}

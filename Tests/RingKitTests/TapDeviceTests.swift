import CUring
import Glibc
import RingKit
import Testing

/// TAPs as the control thread makes, finds and changes them, in network namespaces of their own.
@Suite(.enabled(if: tapObstacle == nil, "\(tapObstacle ?? "")"))
struct TapDeviceTests {
  @Test func aTapIsMadeWithoutCarrierAndGoesWithItsObject() throws {
    try inNetwork { _ in
      let control = try LinkControl()
      do {
        let device = try TapDevice(creating: "vif1.0")
        let status = try device.status
        #expect(status.index == device.index && status.name == "vif1.0")
        #expect(status.kind == "tun" && status.tun?.isTap == true && status.tun?.isMultiQueue == true)
        #expect(status.tun?.queueCount == 1 && status.tun?.isPersistent == false)
        #expect(!status.hasCarrier && !status.isUp && !device.hasCarrier)
        #expect(status.mtu == 1500 && status.transmitQueueLength == 256)
        #expect(try device.name == "vif1.0" && device.mtu == 1500 && !device.isUp)
        let queue = device.queues[0]
        #expect(fcntl(queue.descriptor, F_GETFL) & O_NONBLOCK != 0)
        #expect(fcntl(queue.descriptor, F_GETFD) & FD_CLOEXEC != 0)
        #expect(try control.status(name: "vif1.0") == status)
      }
      #expect(try onceClosed { try control.status(name: "vif1.0") == nil })
    }
  }

  @Test func settingsReachTheInterface() throws {
    try inNetwork { _ in
      let device = try TapDevice(creating: "vif1.1", transmitQueueLength: 64)
      #expect(try device.status.transmitQueueLength == 64)
      try device.setTransmitQueueLength(128)
      try device.setMTU(9000)
      try device.setAddress([0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
      try device.setAlias("ringback vif 1 1")
      try device.setUp(true)
      try device.setCarrier(true)
      let status = try device.status
      #expect(status.transmitQueueLength == 128 && status.mtu == 9000)
      #expect(status.address == [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
      #expect(status.alias == "ringback vif 1 1" && status.isUp && status.hasCarrier)
      try device.setAlias("")
      try device.setUp(false)
      #expect(try device.status.alias == "" && !device.isUp)
      #expect(failure { try device.setAlias(String(repeating: "a", count: 256)) } == .aliasTooLong)
      try device.setAlias(String(repeating: "a", count: 255))
      #expect(try device.status.alias.utf8.count == 255)
      // What the kernel refuses is an error and changes nothing.
      #expect(throws: LinkError.self) { try device.setMTU(65522) }
      #expect(try device.mtu == 9000)
    }
  }

  @Test func moreQueuesLeaveTheCarrierAsItIs() throws {
    try inNetwork { _ in
      let device = try TapDevice(creating: "vif1.0")
      _ = try device.addQueue()
      #expect(try !device.status.hasCarrier)
      try device.setCarrier(true)
      let third = try device.addQueue()
      #expect(try device.status.hasCarrier)
      #expect(device.queues.count == 3)
      #expect(try device.status.tun?.queueCount == 3)
      device.removeQueue(third)
      #expect(device.queues.count == 2)
      #expect(try device.status.hasCarrier)
      // It is closed with its last holder.
      #expect(fcntl(third.descriptor, F_GETFD) >= 0)
    }
  }

  @Test func itHasUpTo256Queues() throws {
    try inNetwork { _ in
      let device = try TapDevice(creating: "vif1.0")
      #expect(failure { try device.setQueueCount(257) } == .tooManyQueues)
      #expect(failure { try device.setQueueCount(0) } == .tooManyQueues)
      try device.setQueueCount(256)
      #expect(try device.status.tun?.queueCount == 256)
      #expect(failure { _ = try device.addQueue() } == .tooManyQueues)
      try device.setQueueCount(2)
      #expect(try device.status.tun?.queueCount == 2)
      device.removeQueue(device.queues[0])
      device.removeQueue(device.queues[0])
      #expect(device.queues.count == 1)
      #expect(try device.status.tun?.queueCount == 1 && device.name == "vif1.0")
    }
  }

  /// What vif-bridge does between `online` and `connected` (net.md 3.3).
  @Test func aRenamedTapInABridgeIsStillKnown() throws {
    try inNetwork { network in
      let device = try TapDevice(creating: "vif1.0")
      try network.addBridge("xenbr0")
      try network.ip("link set dev vif1.0 name guest0")
      try network.ip("link set dev guest0 master xenbr0")
      try network.setUp("guest0")
      // Somebody else takes the former name.
      let other = try TapDevice(creating: "vif1.0")
      #expect(try device.name == "guest0")
      _ = try device.addQueue()
      let status = try device.status
      #expect(status.name == "guest0" && status.isUp && status.tun?.queueCount == 2)
      #expect(try status.masterIndex == LinkControl().status(name: "xenbr0")?.index)
      #expect(try other.status.tun?.queueCount == 1)
    }
  }

  @Test func queuesAreOpenedInItsOwnNamespaceOnly() throws {
    try inNetwork { network in
      let device = try TapDevice(creating: "vif1.0")
      try NetworkNamespace().inside {
        #expect(failure { _ = try device.addQueue() } == .otherNamespace)
        // What goes by index and descriptor works from anywhere.
        #expect(try device.name == "vif1.0")
        try device.setMTU(1400)
        #expect(try LinkControl().all().map(\.name) == ["lo"])
      }
      #expect(try device.mtu == 1400)
      #expect(device.queues.count == 1)
    }
  }

  @Test func anEarlierProcessesTapIsFoundAndTakenOver() throws {
    try inNetwork { network in
      try network.addBridge("xenbr0")
      let index: Int32
      do {
        let device = try TapDevice(creating: "vif7.3")
        try device.setAlias("ringback vif 7 3")
        try device.setPersistent(true)
        try device.setCarrier(true)
        try device.setOffloads([.checksum, .tcpIPv4])
        try network.ip("link set dev vif7.3 master xenbr0 name web")
        index = device.index
        #expect(try TapDevice.leftovers(aliasPrefix: "ringback").isEmpty, "it is in use")
        let stranger = try TapDevice(creating: "other")
        try stranger.setPersistent(true)
        try stranger.setAlias("virt-manager")
      }
      let control = try LinkControl()
      for name in ["web", "other"] {
        #expect(try onceClosed { try control.status(name: name)?.tun?.queueCount == 0 })
      }
      let found = try TapDevice.leftovers(aliasPrefix: "ringback ")
      #expect(found.map(\.index) == [index])
      #expect(found.first?.name == "web" && found.first?.alias == "ringback vif 7 3")
      #expect(found.first?.hasCarrier == false, "the kernel turned it off with the last queue")
      #expect(found.first?.tun?.isPersistent == true)
      let device = try TapDevice(attaching: index)
      let status = try device.status
      #expect(status.name == "web" && status.masterIndex != nil && status.tun?.queueCount == 1)
      #expect(!status.hasCarrier && device.index == index)
      #expect(try TapDevice.leftovers(aliasPrefix: "").map(\.name) == ["other"])
      #expect(failure { _ = try TapDevice(attaching: index) } == .inUse(queueCount: 1))
      _ = try device.addQueue()
      try device.setPersistent(false)
      #expect(try device.status.tun?.isPersistent == false)
      try device.delete()
      #expect(failure { _ = try device.name } == .gone)
      #expect(failure { _ = try device.status } == .gone)
      #expect(failure { _ = try device.addQueue() } == .gone)
      #expect(failure { _ = try TapDevice(attaching: index) } == .gone)
    }
  }

  @Test func aTakenNameTellsWhoHasIt() throws {
    try inNetwork { network in
      try network.addBridge("br0")
      let tap = try TapDevice(creating: "vif1.0")
      try network.ip("tuntap add dev one mode tap")
      try network.ip("tuntap add dev point mode tun multi_queue")
      for (name, words) in [
        ("br0", "kind bridge"), ("vif1.0", "a TAP that a program has open (queues: 1)"),
        ("point", "a TUN device that no program has open"), ("one", "a TAP of another program"),
      ] {
        do throws(LinkError) {
          _ = try TapDevice(creating: name)
          Issue.record("\(name) was taken")
        } catch {
          #expect(error.link == name && "\(error)".contains(words) && "\(error)".contains("ip link delete"))
        }
      }
      #expect(try tap.status.tun?.queueCount == 1, "a second try opened no queue of it")
      for (name, words) in [
        ("br0", "kind bridge"), ("one", "a TAP of one queue"), ("point", "a TUN device"), ("lo", "hardware"),
      ] {
        let index = try #require(try LinkControl().status(name: name)?.index)
        guard case .notOurKind(let kind) = failure({ _ = try TapDevice(attaching: index) }) else {
          Issue.record("\(name) was attached")
          continue
        }
        #expect(kind.contains(words))
      }
    }
  }

  @Test(arguments: ["", "vif1234567.12345", "a b", "a/b", "a:b", "vif%d", ".", "..", "tab\t", "zero\0"])
  func aNameThatTheKernelDoesNotTakeIsRefused(name: String) throws {
    try inNetwork { _ in
      #expect(failure { _ = try TapDevice(creating: name) } == .badName)
      let all = try LinkControl().all()
      #expect(all.map(\.name) == ["lo"])
    }
  }

  @Test func theLongestNameIsKeptWhole() throws {
    try inNetwork { _ in
      let device = try TapDevice(creating: "vif32767.123456")
      #expect(try device.name == "vif32767.123456")
      #expect(try LinkControl().status(name: "vif32767.123456")?.index == device.index)
      _ = try device.addQueue()
      #expect(device.queues.count == 2)
    }
  }

  @Test func withoutPermissionTheErrorNamesTheCapability() async {
    await #expect(processExitsWith: .success) {
      // On a thread that need not come back.
      try NetworkNamespace().run {
        try #require(setgid(65534) == 0 && setuid(65534) == 0)
        do throws(LinkError) {
          _ = try TapDevice(creating: "vif1.0")
          exit(3)
        } catch {
          try #require(error.reason == .permission && "\(error)".contains("CAP_NET_ADMIN"))
        }
        // To look is allowed, to change is not.
        let control = try LinkControl()
        let loopback = try #require(try control.status(name: "lo"))
        try #require(failure { try control.setUp(true, of: loopback.index) } == .permission)
        try #require(failure { try control.setAlias("x", of: loopback.index) } == .permission)
      }
    }
  }

  @Test func unknownOffloadsAreRefusedInWords() throws {
    try inNetwork { _ in
      let device = try TapDevice(creating: "vif1.0")
      try device.setOffloads([.checksum, .tcpIPv4, .tcpIPv6, .tcpECN])
      try device.setOffloads([])
      for wrong in [TapOffloads(rawValue: 0x4000_0001), [.tcpIPv4]] {
        guard case .unknownToKernel = failure({ try device.setOffloads(wrong) }) else {
          Issue.record("\(wrong) was taken")
          continue
        }
      }
    }
  }

  @Test func errorsSayWhatToDo() {
    let texts: [(LinkError.Reason, String)] = [
      (.noTunDevice, "modprobe tun"), (.permission, "CAP_NET_ADMIN"), (.badName, "1 to 15 bytes"),
      (.taken(nil), "another interface"), (.tooManyQueues, "256"), (.gone, "deleted"),
      (.inUse(queueCount: 2), "2 of its queues"), (.otherNamespace, "namespace"),
    ]
    for (reason, words) in texts {
      let text = "\(LinkError(link: "vif1.0", reason: reason))"
      #expect(text.hasPrefix("vif1.0: ") && text.contains(words), "\(text)")
    }
  }
}

import ArgumentParser
import Blkback
import Foundation
import Frontends
import RingKit

/// A guest's side of a disk, as a process.
struct Guest: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Be a guest: connect to a disk as a kernel's blkfront would, use it, and leave.",
    discussion: """
      Runs in the domain given with --own-domain, on loopback or in a Xen domain. The steps asked for are done in
      this order: write an image, verify an image, run a load.
      """)

  @OptionGroup var host: HostOptions

  @Option(name: .shortAndLong, help: ArgumentHelp("The disk's name, such as xvda.", valueName: "name"))
  var vdev: VirtualDeviceArgument

  @Option(help: ArgumentHelp("Write this file to the disk's begin, then flush.", valueName: "path"))
  var writeImage: String?

  @Option(help: ArgumentHelp("Compare the disk's begin with this file.", valueName: "path"))
  var verifyImage: String?

  @Option(help: "Run a load: randread, randwrite, randrw, read or write.")
  var load: Load?

  @Option(help: ArgumentHelp("Requests in flight of the load.", valueName: "count"))
  var depth = 32

  @Option(
    help: ArgumentHelp("Bytes of the load's requests: a multiple of 512 up to 45056.", valueName: "bytes"))
  var blockSize = 4096

  @Option(help: ArgumentHelp("Milliseconds of the load.", valueName: "ms"))
  var duration = 2000

  @Option(help: ArgumentHelp("Where the load begins to choose.", valueName: "number"))
  var seed: UInt64 = 1

  @Flag(help: "Stamp what the load writes and judge each sector it reads.")
  var check = false

  @Option(help: ArgumentHelp("Pages of the ring as a power of two, 0 to 4.", valueName: "order"))
  var ringOrder = 0

  @Option(help: "Layout of the ring's slots: x86_64-abi, x86_32-abi or arm-abi.")
  var layout = BlockABI.x86_64.protocolName

  @Flag(
    name: .customLong("persistent-grants"), inversion: .prefixedNo, help: "Let the backend keep pages mapped."
  )
  var persistentGrants = true

  @Flag(help: "Grant pages anew for each request, as Linux does without persistent grants.")
  var regrant = false

  @Option(help: ArgumentHelp("Nanoseconds to look for answers before sleeping.", valueName: "ns"))
  var spin: UInt64 = 0

  @Flag(help: "Print JSON.")
  var json = false

  enum Load: String, CaseIterable, ExpressibleByArgument {
    case randread, randwrite, randrw, read, write

    var readPercent: Int {
      switch self {
      case .randread, .read: 100
      case .randwrite, .write: 0
      case .randrw: 50
      }
    }
  }

  func validate() throws {
    guard (0...4).contains(ringOrder) else { throw ValidationError("--ring-order is 0 to 4") }
    guard BlockABI(protocolName: layout) != nil else {
      throw ValidationError("--layout is x86_64-abi, x86_32-abi or arm-abi")
    }
    guard blockSize > 0, blockSize <= 45056, blockSize % 512 == 0 else {
      throw ValidationError("--block-size is a multiple of 512 up to 45056")
    }
    guard (1...1024).contains(depth) else { throw ValidationError("--depth is 1 to 1024") }
    guard duration > 0 else { throw ValidationError("--duration is at least 1 ms") }
  }

  func run() throws {
    var options = BlockFrontendOptions()
    options.ringPageOrder = ringOrder
    options.abi = BlockABI(protocolName: layout) ?? .x86_64
    options.persistentGrants = persistentGrants
    options.grantLifetime = regrant ? .request : .connection
    options.spinNanoseconds = spin
    let frontend = try BlockFrontend(
      hypervisor: host.open(), domain: DomainID(rawValue: host.ownDomain), device: vdev.device.number,
      options: options)
    try frontend.connect()
    var report = GuestReport(frontend)
    let transfer = ImageTransfer()
    if let writeImage { report.writtenBytes = try transfer.copyIn(path: writeImage, to: frontend) }
    if let verifyImage {
      if let sector = try transfer.compare(path: verifyImage, with: frontend) {
        throw CommandError("the disk differs from \(verifyImage) at sector \(sector)")
      }
      report.verifiedImage = verifyImage
    }
    if let load {
      report.load = GuestReport.Load(try workload(load).run(on: frontend, model: model(frontend)))
    }
    report.events = frontend.notificationCount
    try frontend.close()
    print(json ? try report.json() : report.text)
  }

  private func workload(_ kind: Load) -> BlockWorkload {
    var workload = BlockWorkload()
    workload.pattern = kind == .read || kind == .write ? .sequential : .random
    workload.readPercent = kind.readPercent
    workload.blockByteCount = blockSize
    workload.queueDepth = depth
    workload.durationMilliseconds = duration
    workload.seed = seed
    return workload
  }

  private func model(_ frontend: BlockFrontend) -> DiskModel? {
    guard check, let disk = frontend.disk else { return nil }
    return DiskModel(sectorCount: Int(disk.sectorCount), seed: seed)
  }
}

/// What a guest saw and did.
struct GuestReport: Codable {
  var disk: String
  var backend: String
  var sectors: UInt64
  var ringSlots: Int
  var layout: String
  var persistentGrants: Bool
  var readOnly: Bool
  var writtenBytes: UInt64?
  var verifiedImage: String?
  var load: Load?
  var events: UInt64 = 0

  /// A load's result.
  struct Load: Codable {
    var requests: UInt64
    var requestsPerSecond: Double
    var bytesPerSecond: Double
    var errors: UInt64
    var mismatches: UInt64
    var verifiedSectors: UInt64
    var elapsedNanoseconds: UInt64
    var latencyMedianNanoseconds: UInt64
    var latency99thNanoseconds: UInt64

    init(_ result: BlockWorkloadResult) {
      requests = result.requests
      requestsPerSecond = result.requestsPerSecond
      bytesPerSecond = result.bytesPerSecond
      errors = result.errors
      mismatches = result.mismatches
      verifiedSectors = result.verifiedSectors
      elapsedNanoseconds = result.elapsedNanoseconds
      latencyMedianNanoseconds = result.latency.quantile(0.5)
      latency99thNanoseconds = result.latency.quantile(0.99)
    }
  }

  init(_ frontend: BlockFrontend) {
    disk = VirtualDevice(number: frontend.device).description
    backend = frontend.backendPath
    sectors = frontend.disk?.sectorCount ?? 0
    ringSlots = frontend.queues.first?.slotCount ?? 0
    layout = frontend.options.abi.protocolName
    persistentGrants = frontend.options.persistentGrants && (frontend.features?.persistentGrants ?? false)
    readOnly = frontend.disk?.isReadOnly ?? false
  }

  var text: String {
    var lines = [
      "\(disk): \(sectors * 512 / 1_048_576) MiB from \(backend)",
      "ring of \(ringSlots) slots, \(layout), "
        + (persistentGrants ? "pages stay mapped" : "pages are copied"),
    ]
    if let writtenBytes { lines.append("wrote \(writtenBytes) bytes and flushed") }
    if let verifiedImage { lines.append("holds the same bytes as \(verifiedImage)") }
    if let load {
      lines.append(
        "\(load.requests) requests, \(Int(load.requestsPerSecond)) a second, \(load.errors) errors, "
          + "median \(load.latencyMedianNanoseconds / 1000) us, 99% within \(load.latency99thNanoseconds / 1000) us"
      )
      if load.verifiedSectors > 0 {
        lines.append("judged \(load.verifiedSectors) sectors, \(load.mismatches) wrong")
      }
    }
    return lines.joined(separator: "\n")
  }
}

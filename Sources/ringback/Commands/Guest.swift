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
      Runs in the domain given with --own-domain, on loopback or in a Xen domain. The steps asked for are done in \
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

  @Option(help: ArgumentHelp("Requests in flight of the load in each queue.", valueName: "count"))
  var depth = 32

  @Option(
    help: ArgumentHelp(
      "Bytes of the load's requests: a multiple of 512, up to 45056 or what --indirect allows.",
      valueName: "bytes"))
  var blockSize = 4096

  @Option(
    help: ArgumentHelp(
      "Requests have up to so many bytes, whole multiples of --block-size.", valueName: "bytes"))
  var maxBlockSize: Int?

  @Option(help: ArgumentHelp("Share of the load that are discards.", valueName: "percent"))
  var discards = 0

  @Option(help: ArgumentHelp("Share of the load's writes that are write barriers.", valueName: "percent"))
  var barriers = 0

  @Option(help: ArgumentHelp("Flush after so many writes; 0 for never.", valueName: "count"))
  var flushEvery: UInt64 = 0

  @Option(
    help: ArgumentHelp("Reconnect after so many requests, some in flight; 0 for never.", valueName: "count"))
  var reconnectEvery: UInt64 = 0

  @Option(help: ArgumentHelp("Rings to use, as far as the backend offers them.", valueName: "count"))
  var queues = 1

  @Option(
    help: ArgumentHelp(
      "Segments of a request at most, as far as the backend offers them.", valueName: "count"))
  var indirect = 32

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
    let largest = 16 << 20
    guard blockSize > 0, blockSize <= largest, blockSize % 512 == 0 else {
      throw ValidationError("--block-size is a multiple of 512 up to \(largest)")
    }
    if let maxBlockSize {
      guard maxBlockSize >= blockSize, maxBlockSize <= largest, maxBlockSize % blockSize == 0 else {
        throw ValidationError("--max-block-size is a multiple of --block-size up to \(largest)")
      }
    }
    guard (0...100).contains(discards), (0...100).contains(barriers) else {
      throw ValidationError("--discards and --barriers are 0 to 100")
    }
    guard (1...64).contains(queues) else { throw ValidationError("--queues is 1 to 64") }
    guard (0...4096).contains(indirect) else { throw ValidationError("--indirect is 0 to 4096") }
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
    options.queueCount = queues
    options.maximumIndirectSegments = indirect
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
    workload.maximumBlockCount = (maxBlockSize ?? blockSize) / blockSize
    workload.discardPercent = discards
    workload.barrierPercent = barriers
    workload.writesBetweenFlushes = flushEvery
    workload.requestsBetweenReconnects = reconnectEvery
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
  var queues: Int
  var ringSlots: Int
  var segments: Int
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
    var reads: UInt64
    var writes: UInt64
    var flushes: UInt64
    var barriers: UInt64
    var discards: UInt64
    var indirectRequests: UInt64
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
      reads = result.reads
      writes = result.writes
      flushes = result.flushes
      barriers = result.orderedWrites
      discards = result.discards
      indirectRequests = result.indirectRequests
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
    backend = frontend.directory.backendPath
    sectors = frontend.disk?.sectorCount ?? 0
    queues = frontend.queues.count
    ringSlots = frontend.queues.first?.slotCount ?? 0
    segments = frontend.queues.first?.segmentCapacity ?? 0
    layout = frontend.options.abi.protocolName
    persistentGrants = frontend.options.persistentGrants && (frontend.features?.persistentGrants ?? false)
    readOnly = frontend.disk?.isReadOnly ?? false
  }

  var text: String {
    var lines = [
      "\(disk): \(sectors * 512 / 1_048_576) MiB from \(backend)",
      (queues == 1 ? "ring" : "\(queues) rings") + " of \(ringSlots) slots, up to \(segments) segments, "
        + "\(layout), "
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

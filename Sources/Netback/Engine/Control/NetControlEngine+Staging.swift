import RingKit

/// A request about staging grants that is at work.
struct StagingOperation {
  enum Phase: Equatable {
    /// Pages are being mapped.
    case mapping
    /// One could not be; the others are being unmapped.
    case undoing
    /// The queue was told to let go of them.
    case removing(token: UInt32)
    /// It has; they are being unmapped.
    case releasing
  }

  let request: NetControlRequest
  var phase: Phase
  /// The list, copied from the frontend.
  var entries: [NetGrantEntry]
  /// Pages that are mapped for it, or are to be unmapped.
  var pages: [StagedPage]

  var queue: Int { Int(request.data.0) }
  var list: GrantReference { GrantReference(rawValue: request.data.1) }
}

/// Staging grants: pages that stay mapped on a queue until the frontend takes them back (netif.h, control
/// messages 8 to 10; docs/misc/netif-staging-grants.pandoc).
extension NetControlEngine where Host: ~Copyable {
  /// Answers a request that is wrong by itself, and lets the others wait for their turn.
  mutating func acceptStaging(_ request: NetControlRequest) {
    let (queue, _, count) = request.data
    guard stagingCapacity > 0 else { return respond(to: request, .notSupported) }
    guard queue < UInt32(queueCount), count <= UInt32(NetGrantEntry.maximumCount) else {
      return respond(to: request, .invalidParameter)
    }
    guard count > 0 else { return respond(to: request, .success) }
    waiting.append(request)
  }

  /// True when a turn would get on with staging grants.
  var canAdvanceStaging: Bool {
    guard let operation else { return !waiting.isEmpty }
    if case .removing = operation.phase { return false }
    return true
  }

  /// Does one turn's share of the request at work, or begins the next one.
  mutating func advanceStaging(host: inout Host) {
    guard failure == nil else { return }
    if operation == nil, !waiting.isEmpty {
      begin(waiting.removeFirst(), host: &host)
      return
    }
    switch operation?.phase {
    case .mapping: mapPages(host: &host)
    case .undoing, .releasing: releasePages(host: &host)
    case .removing, nil: break
    }
  }

  /// A queue has let go of what ``NetControlHost/unstage(_:onQueue:token:)`` named with `token`; others are
  /// ignored.
  public mutating func unstaged(token: UInt32) {
    guard operation?.phase == .removing(token: token) else { return }
    operation?.phase = .releasing
  }

  private mutating func begin(_ request: NetControlRequest, host: inout Host) {
    if isClosing, request.type == .addGrantMapping { return respond(to: request, .invalidParameter) }
    let count = Int(request.data.2)
    let byteCount = count * NetGrantEntry.byteCount
    let list = GrantReference(rawValue: request.data.1)
    // The header has the page granted for writing, which copying the list back as it is finds out before
    // anything has changed.
    guard copy(byteCount, of: list, toGuest: false, host: &host),
      copy(byteCount, of: list, toGuest: true, host: &host)
    else { return respond(to: request, .invalidParameter) }
    let entries = page.copyWords(at: 0, count: count).map { NetGrantEntry(word: $0) }
    let operation = StagingOperation(request: request, phase: .mapping, entries: entries, pages: [])
    if request.type == .addGrantMapping {
      guard mayAdd(operation) else { return respond(to: request, .invalidParameter) }
      self.operation = operation
    } else {
      beginRemoval(operation, host: &host)
    }
  }

  // MARK: Adding

  /// True when nothing about the list forbids to map all of it.
  private func mayAdd(_ operation: StagingOperation) -> Bool {
    guard operation.entries.count <= stagingCapacity - staged[operation.queue].count else { return false }
    var seen: Set<GrantReference> = []
    for entry in operation.entries {
      guard entry.flags & ~NetGrantEntry.readOnlyFlag == 0, staged[operation.queue][entry.reference] == nil,
        seen.insert(entry.reference).inserted
      else { return false }
    }
    return true
  }

  private mutating func mapPages(host: inout Host) {
    guard var work = operation.take() else { return }
    for _ in 0..<Self.pageBudget where work.pages.count < work.entries.count {
      guard let page = map(work.entries[work.pages.count], host: &host) else {
        work.phase = .undoing
        operation = work
        return
      }
      work.pages.append(page)
    }
    guard work.pages.count == work.entries.count else {
      operation = work
      return
    }
    for page in work.pages { staged[work.queue][page.reference] = page }
    host.stage(work.pages, onQueue: work.queue)
    respond(to: work.request, .success)
  }

  /// Maps a page, unless another queue has it: a reference is never mapped twice (XSA-218, 224).
  private func map(_ entry: NetGrantEntry, host: inout Host) -> StagedPage? {
    let isWritable = entry.flags & NetGrantEntry.readOnlyFlag == 0
    for pages in staged {
      guard let known = pages[entry.reference] else { continue }
      guard known.isWritable || !isWritable else { return nil }
      return StagedPage(reference: entry.reference, isWritable: isWritable, pages: known.pages)
    }
    guard let pages = host.map(entry.reference, access: isWritable ? .readWrite : .readOnly) else {
      return nil
    }
    return StagedPage(reference: entry.reference, isWritable: isWritable, pages: pages)
  }

  // MARK: Removing

  private mutating func beginRemoval(_ operation: StagingOperation, host: inout Host) {
    var work = operation
    for index in work.entries.indices {
      // One that is named twice is there only once.
      if let page = staged[work.queue].removeValue(forKey: work.entries[index].reference) {
        work.pages.append(page)
        work.entries[index].status = UInt16(NetControlStatus.success.rawValue)
      } else {
        work.entries[index].status = UInt16(NetControlStatus.invalidParameter.rawValue)
      }
    }
    guard !work.pages.isEmpty else { return finishRemoval(work, host: &host) }
    nextToken &+= 1
    work.phase = .removing(token: nextToken)
    self.operation = work
    host.unstage(work.pages.map(\.reference), onQueue: work.queue, token: nextToken)
  }

  private mutating func releasePages(host: inout Host) {
    guard var work = operation.take() else { return }
    work.pages.removeLast(min(Self.pageBudget, work.pages.count))
    if !work.pages.isEmpty {
      operation = work
    } else if work.phase == .undoing {
      respond(to: work.request, .invalidParameter)
    } else {
      finishRemoval(work, host: &host)
    }
  }

  /// Tells the frontend which pages it has back: never before they are unmapped.
  private mutating func finishRemoval(_ work: StagingOperation, host: inout Host) {
    let success = UInt16(NetControlStatus.success.rawValue)
    let removed = UInt32(work.entries.count { $0.status == success })
    page.setWords(work.entries.map(\.word), at: 0)
    let byteCount = work.entries.count * NetGrantEntry.byteCount
    let isTold = copy(byteCount, of: work.list, toGuest: true, host: &host)
    respond(to: work.request, isTold ? .success : .invalidParameter, data: removed)
  }
}

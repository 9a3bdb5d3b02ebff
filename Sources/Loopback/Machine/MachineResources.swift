import RingKit

/// The machine's state joined to what it stands for: memories, grant words and events.
struct MachineResources {
  /// An answer to a request.
  struct Reply {
    var words: [UInt32] = []
    var descriptors: [Descriptor] = []
  }

  private(set) var state = MachineState()
  private var memories: [UInt32: Descriptor] = [:]
  private var grantWords: [DomainID: GrantWords] = [:]
  private var channels: [MachineState.Channel: ChannelEvents] = [:]

  /// The two events of a channel.
  private struct ChannelEvents {
    let first: Descriptor
    let second: Descriptor

    func inbox(_ side: MachineState.Side) -> Descriptor { side == .first ? first : second }
  }

  /// Memories and events that are held; grant words stay for good.
  var descriptorCount: Int { memories.count + channels.count * 2 }

  /// Domains whose words are kept: they stay for good, because readers never map them anew.
  private static var maximumDomainCount: Int { 1024 }

  /// Answers one request. Whatever it says, the answer is words; nothing it says can stop the machine.
  mutating func answer(_ words: [UInt32], from connection: MachineState.Connection) -> Reply {
    do {
      var reply = try perform(words, from: connection)
      reply.words.insert(0, at: 0)
      return reply
    } catch let refusal as MachineRefusal {
      return Reply(words: [refusal.rawValue])
    } catch {
      // Making memory or events failed: a SystemError.
      return Reply(words: [MachineRefusal.exhausted.rawValue])
    }
  }

  private mutating func perform(
    _ words: [UInt32], from connection: MachineState.Connection
  ) throws -> Reply {
    var arguments = RequestArguments(words.dropFirst())
    guard let first = words.first, let request = MachineRequest(rawValue: first) else {
      throw MachineRefusal.malformed
    }
    switch request {
    case .hello:
      guard try arguments.next() == MachineRequest.version else { throw MachineRefusal.malformed }
      return try hello(connection, try arguments.lastDomain())
    case .share:
      let pageCount = Int(try arguments.next())
      return try share(
        connection, pageCount: pageCount, grantee: try arguments.domain(),
        writable: try arguments.last() != 0)
    case .endShare:
      forget(try state.endShare(connection, first: try arguments.last()))
      return Reply()
    case .endGrant:
      forget(try state.endGrant(connection, reference: try arguments.last()))
      return Reply()
    case .map:
      return try map(
        connection, owner: try arguments.domain(), writing: try arguments.next() != 0,
        references: arguments.rest())
    case .unmap:
      for number in arguments.rest() { try state.unmap(connection, number: number) }
      return Reply()
    case .grantWords:
      return try readableWords(connection, of: try arguments.lastDomain())
    case .lookUp:
      return try lookUp(connection, owner: try arguments.domain(), reference: try arguments.last())
    case .allocatePort:
      return try allocatePort(connection, remote: try arguments.lastDomain())
    case .bindPort:
      return try bindPort(
        connection, remote: try arguments.domain(), remotePort: try arguments.last())
    case .closePort:
      if let channel = try state.closePort(connection, port: try arguments.last()) {
        channels[channel] = nil
      }
      return Reply()
    }
  }

  /// Ends what belongs to a connection; returns the domain when it was its last.
  mutating func disconnect(_ connection: MachineState.Connection) -> DomainID? {
    let departure = state.disconnect(connection)
    for ended in departure.endedGrants { forget(ended) }
    for channel in departure.closedChannels { channels[channel] = nil }
    return departure.goneDomain
  }

  private mutating func forget(_ ended: MachineState.EndedGrants) {
    for reference in ended.references { grantWords[ended.owner]?.set(.none, for: reference) }
    if ended.isWholeShare { memories[ended.share] = nil }
  }
}

extension MachineResources {
  private mutating func hello(
    _ connection: MachineState.Connection, _ domain: DomainID
  ) throws -> Reply {
    if grantWords[domain] == nil {
      guard grantWords.count < Self.maximumDomainCount else { throw MachineRefusal.noSpace }
      grantWords[domain] = try GrantWords()
    }
    try state.connect(connection, as: domain)
    return Reply()
  }

  private mutating func share(
    _ connection: MachineState.Connection, pageCount: Int, grantee: DomainID, writable: Bool
  ) throws -> Reply {
    guard pageCount > 0, pageCount <= MachineState.maximumSharePageCount else {
      throw MachineRefusal.malformed
    }
    // First what can fail, then the books.
    let memory = try Descriptor.sharedMemory(name: "granted", byteCount: pageCount * pageByteCount)
    let share = try state.share(
      connection, pageCount: pageCount, grantee: grantee, writable: writable)
    memories[share.number] = memory
    for reference in share.first..<share.first + UInt32(pageCount) {
      grantWords[share.owner]?.set(share.word, for: reference)
    }
    return Reply(words: [share.first], descriptors: [memory])
  }

  private mutating func map(
    _ connection: MachineState.Connection, owner: DomainID, writing: Bool, references: [UInt32]
  ) throws -> Reply {
    let map = try state.map(connection, owner: owner, references: references, writing: writing)
    do {
      var reply = Reply(words: [map.number])
      var indices: [UInt32: UInt32] = [:]
      for granted in map.pages {
        let index: UInt32
        if let known = indices[granted.share.number] {
          index = known
        } else {
          index = UInt32(reply.descriptors.count)
          reply.descriptors.append(try memory(of: granted.share, writing: writing))
          indices[granted.share.number] = index
        }
        reply.words += [index, UInt32(granted.page)]
      }
      return reply
    } catch {
      try state.unmap(connection, number: map.number)
      throw error
    }
  }

  private func lookUp(
    _ connection: MachineState.Connection, owner: DomainID, reference: UInt32
  ) throws -> Reply {
    let granted = try state.grantedPage(
      connection, owner: owner, reference: reference, writing: false)
    let share = granted.share
    return Reply(
      words: [share.first, UInt32(share.pageCount), share.word.rawValue],
      descriptors: [try memory(of: share, writing: share.word.isWritable)])
  }

  private func memory(of share: MachineState.Share, writing: Bool) throws -> Descriptor {
    guard let memory = memories[share.number] else { throw MachineRefusal.badReference }
    return writing ? memory : try memory.reopenedForReading()
  }

  private func readableWords(
    _ connection: MachineState.Connection, of owner: DomainID
  ) throws -> Reply {
    _ = try state.domain(of: connection)
    guard let words = try grantWords[owner]?.readable() else { throw MachineRefusal.unknownDomain }
    return Reply(descriptors: [words])
  }

  private mutating func allocatePort(
    _ connection: MachineState.Connection, remote: DomainID
  ) throws -> Reply {
    let events = ChannelEvents(first: try .event(), second: try .event())
    let (port, end) = try state.allocatePort(connection, for: remote)
    channels[end.channel] = events
    return Reply(words: [port], descriptors: [events.inbox(end.side), events.inbox(end.side.other)])
  }

  private mutating func bindPort(
    _ connection: MachineState.Connection, remote: DomainID, remotePort: UInt32
  ) throws -> Reply {
    let (port, end) = try state.bindPort(connection, remote: remote, remotePort: remotePort)
    guard let events = channels[end.channel] else { throw MachineRefusal.badPort }
    // Xen makes a newly bound port pending, because events sent earlier may have been lost.
    events.inbox(end.side).signal()
    return Reply(words: [port], descriptors: [events.inbox(end.side), events.inbox(end.side.other)])
  }
}

/// Reads a request's words, each exactly once and none too many.
struct RequestArguments {
  private var words: ArraySlice<UInt32>

  init(_ words: ArraySlice<UInt32>) { self.words = words }

  /// The next word.
  mutating func next() throws(MachineRefusal) -> UInt32 {
    guard let word = words.popFirst() else { throw .malformed }
    return word
  }

  /// The last word.
  mutating func last() throws(MachineRefusal) -> UInt32 {
    guard words.count == 1 else { throw .malformed }
    return try next()
  }

  /// The next word as a domain's number.
  mutating func domain() throws(MachineRefusal) -> DomainID {
    guard let number = UInt16(exactly: try next()) else { throw .malformed }
    return DomainID(rawValue: number)
  }

  /// The last word as a domain's number.
  mutating func lastDomain() throws(MachineRefusal) -> DomainID {
    guard words.count == 1 else { throw .malformed }
    return try domain()
  }

  /// All further words.
  mutating func rest() -> [UInt32] {
    defer { words = [] }
    return Array(words)
  }
}

/// One request and how it is answered: payload syntax of `docs/misc/xenstore.txt`, one case for each
/// message type of `xs_wire.h`.
struct StoreRequest {
  struct Reply {
    var message: StoreMessage
    /// A watch event for the same client right behind the reply.
    var event: [UInt8]?
  }

  private static let ok = Array("OK\0".utf8)

  let message: StoreMessage
  /// Which of the core's connections sent it.
  let index: Int

  func answer(in core: inout StoreCore) -> Reply {
    do throws(StoreFailure) {
      let (payload, event) = try perform(in: &core)
      guard payload.count <= StoreMessage.payloadBytesMax else { throw .tooBig }
      return Reply(message: reply(message.type, payload), event: event)
    } catch {
      return Reply(message: reply(StoreMessageType.error.rawValue, Array(error.rawValue.utf8) + [0]))
    }
  }

  private func reply(_ type: UInt32, _ payload: [UInt8]) -> StoreMessage {
    StoreMessage(
      type: type, request: message.request, transaction: message.transaction, payload: payload)
  }

  private func perform(
    in core: inout StoreCore
  ) throws(StoreFailure) -> (payload: [UInt8], event: [UInt8]?) {
    guard let type = StoreMessageType(rawValue: message.type), type != .watchEvent, type != .error else {
      throw .notImplemented
    }
    let caller = core.caller(index)
    guard caller.isPrivileged || !type.isPrivileged else { throw .accessDenied }
    if !type.ignoresTransaction, !core.hasTransaction(index, message.transaction) { throw .notFound }

    switch type {
    case .directory, .read, .getPermissions, .directoryPart:
      return (try look(type, caller, &core), nil)
    case .write, .makeDirectory, .remove, .setPermissions:
      try change(type, caller, &core)
    case .watch:
      return (Self.ok, try watch(caller, &core))
    case .unwatch:
      let strings = message.payload.strings()
      guard strings.count == 2 else { throw .invalid }
      let path = try NodePath(strings[0], caller: caller, special: true)
      try core.removeWatch(index, path, Array(strings[1]))
    case .resetWatches:
      core.reset(index)
    case .transactionStart:
      guard message.transaction == 0 else { throw .busy }
      return (Array(String(try core.startTransaction(index)).utf8) + [0], nil)
    case .transactionEnd:
      try endTransaction(&core)
    case .getDomainPath:
      let domain = try parseDomain(try message.payload.oneString())
      return (Array(NodePath.home(of: domain).description.utf8) + [0], nil)
    case .isDomainIntroduced:
      let domain = try parseDomain(try message.payload.oneString())
      let isSelf = domain == 0x7FF0
      return (Array((isSelf || core.introduced.contains(domain) ? "T\0" : "F\0").utf8), nil)
    case .introduce, .release, .resume, .setTarget:
      try domainControl(type, &core)
    case .control:
      return (try control(&core), nil)
    case .watchEvent, .error:
      throw .notImplemented
    }
    return (Self.ok, nil)
  }

  // MARK: Nodes

  private func look(
    _ type: StoreMessageType, _ caller: StoreCaller, _ core: inout StoreCore
  ) throws(StoreFailure) -> [UInt8] {
    if type == .directoryPart { return try directoryPart(caller, &core) }
    let special = type == .getPermissions
    let path = try NodePath(try message.payload.oneString(), caller: caller, special: special)
    return try core.withTree(index, message.transaction) { tree throws(StoreFailure) in
      switch type {
      case .directory: return try tree.directory(path, as: caller).names
      case .read: return try tree.read(path, as: caller)
      default:
        let permissions = try tree.permissions(path, as: caller)
        return permissions.flatMap { Array($0.description.utf8) + [0] }
      }
    }
  }

  /// `<path>|<offset>` -> `<generation>|<name>|*`, as many names as fit, and an empty one behind the last.
  private func directoryPart(
    _ caller: StoreCaller, _ core: inout StoreCore
  ) throws(StoreFailure) -> [UInt8] {
    let strings = message.payload.strings()
    guard strings.count == 2 else { throw .invalid }
    let path = try NodePath(strings[0], caller: caller, special: false)
    guard let offset = Int(String(decoding: strings[1], as: UTF8.self)), offset >= 0 else { throw .invalid }
    let (names, generation) = try core.withTree(index, message.transaction) { tree throws(StoreFailure) in
      try tree.directory(path, as: caller)
    }
    var reply = Array(String(generation).utf8) + [0]
    guard offset < names.count else { return reply + [0] }
    // Room for the closing empty name is kept.
    let room = StoreMessage.payloadBytesMax - reply.count - 1
    var part = names[offset...].prefix(room)
    if part.endIndex < names.count {
      guard let last = part.lastIndex(of: 0) else { throw .tooBig }
      part = part[...last]
    }
    reply.append(contentsOf: part)
    if part.endIndex == names.count { reply.append(0) }
    return reply
  }

  private func change(
    _ type: StoreMessageType, _ caller: StoreCaller, _ core: inout StoreCore
  ) throws(StoreFailure) {
    let name: ArraySlice<UInt8>
    var value: ArraySlice<UInt8> = []
    var permissions: [NodePermission] = []
    switch type {
    case .write:
      guard let end = message.payload.firstIndex(of: 0) else { throw .invalid }
      name = message.payload[..<end]
      value = message.payload[(end + 1)...]
    case .setPermissions:
      let strings = message.payload.strings()
      guard strings.count >= 2 else { throw .invalid }
      name = strings[0]
      for text in strings.dropFirst() { permissions.append(try NodePermission(text)) }
    default:
      name = try message.payload.oneString()
    }
    let path = try NodePath(name, caller: caller, special: type == .setPermissions)
    try core.withTree(index, message.transaction) { tree throws(StoreFailure) in
      switch type {
      case .write: try tree.write(path, Array(value), as: caller)
      case .makeDirectory: try tree.makeDirectory(path, as: caller)
      case .remove: try tree.remove(path, as: caller)
      default: try tree.setPermissions(path, permissions, as: caller)
      }
    }
  }

  // MARK: Watches and transactions

  /// The first event of the new watch, which is sent whether or not the node is there.
  private func watch(_ caller: StoreCaller, _ core: inout StoreCore) throws(StoreFailure) -> [UInt8] {
    let strings = message.payload.strings()
    // A third string, the depth, needs a feature of Xen 4.22 which is not offered here.
    guard strings.count == 2 else { throw .invalid }
    let path = try NodePath(strings[0], caller: caller, special: true)
    let isRelative = strings[0].first != UInt8(ascii: "/") && strings[0].first != UInt8(ascii: "@")
    let prefix = isRelative ? NodePath.home(of: caller.domain).byteCount + 1 : 0
    let watch = StoreConnection.Watch(path: path, token: Array(strings[1]), hiddenPrefixBytes: prefix)
    try core.addWatch(index, watch)
    return watch.event(for: path)
  }

  private func endTransaction(_ core: inout StoreCore) throws(StoreFailure) {
    let answer = try message.payload.oneString()
    guard answer.count == 1, let letter = answer.first,
      letter == UInt8(ascii: "T") || letter == UInt8(ascii: "F")
    else { throw .invalid }
    try core.endTransaction(index, message.transaction, commit: letter == UInt8(ascii: "T"))
  }

  // MARK: Domain 0 only

  private func domainControl(_ type: StoreMessageType, _ core: inout StoreCore) throws(StoreFailure) {
    let strings = message.payload.strings()
    switch type {
    case .introduce:
      // <domid>|<gfn>|<evtchn>: there is no ring to map, but the port must look like one.
      guard strings.count >= 3 else { throw .invalid }
      let domain = try parseDomain(strings[0])
      guard let port = UInt32(String(decoding: strings[2], as: UTF8.self)), port > 0 else {
        throw .invalid
      }
      core.introduce(domain: domain)
    case .setTarget:
      guard strings.count >= 2 else { throw .invalid }
      try core.setTarget(of: try parseDomain(strings[0]), to: try parseDomain(strings[1]))
    default:
      let domain = try parseDomain(try message.payload.oneString())
      guard domain != 0 else { throw .invalid }
      guard core.introduced.contains(domain) else { throw .notFound }
      // A resumed domain needs nothing here: there is no hypervisor that told of its shutdown.
      if type == .release { core.release(domain: domain) }
    }
  }

  /// `check` and `help`; xenstored's other commands have no meaning here and are refused as unknown ones.
  private func control(_ core: inout StoreCore) throws(StoreFailure) -> [UInt8] {
    let strings = message.payload.strings().map { String(decoding: $0, as: UTF8.self) }
    switch strings.first {
    case "check" where strings.count == 1:
      guard core.isConsistent else { throw .inputOutput }
      return Self.ok
    case "help" where strings.count == 1:
      return Array("check           \nhelp            \n\0".utf8)
    default: throw .invalid
    }
  }
}

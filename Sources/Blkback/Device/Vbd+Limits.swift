public import RingKit

/// How much a disk may do. Kept in nodes of our own below the backend's directory, which an administrator may
/// also write himself: `limit-bytes` and `limit-requests` a second, `limit-bytes-burst` and
/// `limit-requests-burst` after idle time; absent or 0 for no limit (``RateLimits``). A disk that has none of
/// these nodes is held to the daemon's ``VbdEnvironment/defaultLimits``.
extension Vbd {
  /// The limits in force.
  public var limits: RateLimits { limiter.limits }

  /// Replaces the limits at once, and keeps them for the daemons to come. `done` is called once, on the
  /// control thread.
  public func setLimits(_ limits: RateLimits, done: @escaping (VbdError?) -> Void) {
    do throws(VbdError) {
      try writePrivate(
        RateLimits.nodes.map { node in
          // Without any node the daemon's own limits would hold: then no limit has to be said.
          let isNode = limits[keyPath: node.value] != 0 || environment.defaultLimits.isLimited
          return DeviceNode(node.name, isNode ? String(limits[keyPath: node.value]) : nil)
        })
      apply(limits)
      done(nil)
    } catch {
      done(error)
    }
  }

  private func apply(_ limits: RateLimits) {
    guard limits != limiter.limits else { return }
    limiter.set(limits, atNanoseconds: MonotonicClock.nowNanoseconds())
    environment.log(.information, "limits: \(limits.summary)", about: identity)
  }

  /// Looks at the limits anew, because the daemon's own have changed.
  public func lookAtLimits() {
    guard let nodes, handshake.own != nil, !handshake.isForgotten else { return }
    do throws(StoreError) {
      try followLimits(nodes)
    } catch {
      environment.log(.failure, "\(error)", about: identity)
    }
  }

  /// Takes the nodes' limits over; those that make no sense are told once, and the old ones stay.
  func followLimits(_ nodes: BackendNodes) throws(StoreError) {
    var found: [UInt64?] = []
    do {
      for node in RateLimits.nodes {
        let path = "\(nodes.directory)/\(node.name)"
        found.append(try environment.store.decimalIfPresent(path, in: 0...UInt64.max))
      }
      let values = found.map { $0 ?? 0 }
      apply(
        found.allSatisfy { $0 == nil }
          ? environment.defaultLimits
          : try RateLimits(
            bytesPerSecond: values[0], bytesBurst: values[1], requestsPerSecond: values[2],
            requestsBurst: values[3]))
      told["limits"] = nil
    } catch let error as StoreError {
      guard error.isAboutTheNode else { throw error }
      tellOnce("limits", "\(error); the limits stay as they are: \(limits.summary)")
    } catch {
      tellOnce(
        "limits", "\(nodes.directory)/limit-*: \(error); the limits stay as they are: \(limits.summary)")
    }
  }
}

extension RateLimits {
  /// The nodes that keep them, in the initialiser's order.
  fileprivate static var nodes: [(name: String, value: KeyPath<RateLimits, UInt64>)] {
    [
      ("limit-bytes", \.bytesPerSecond), ("limit-bytes-burst", \.bytesBurst),
      ("limit-requests", \.requestsPerSecond), ("limit-requests-burst", \.requestsBurst),
    ]
  }

  fileprivate var summary: String {
    func part(_ rate: UInt64, _ burst: UInt64, _ unit: String) -> String {
      rate == 0 ? "any \(unit)" : "\(rate) \(unit) a second" + (burst == 0 ? "" : ", bursts of \(burst)")
    }
    return
      "\(part(bytesPerSecond, bytesBurst, "bytes")); \(part(requestsPerSecond, requestsBurst, "requests"))"
  }
}

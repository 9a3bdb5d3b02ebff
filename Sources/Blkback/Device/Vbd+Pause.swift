import RingKit

/// Letting the image go under a running guest, and going on with it or with another one. The rings stay, so
/// that the guest sees only latency.
extension Vbd {
  /// Stops taking requests on all queues, waits for those in flight, makes durable what they wrote, and
  /// closes the image, so that others may change it. Without a connection too: a frontend that connects
  /// meanwhile is connected and waits. A daemon that starts meanwhile leaves the disk paused (node `paused`).
  ///
  /// `done` is called once, on the control thread. Its error is that the state could not be written, in which
  /// case the disk is served on, or that the last writes could not be made durable, in which case it is
  /// paused nevertheless. A paused disk is left as it is.
  public func pause(done: @escaping (VbdError?) -> Void) {
    command { [self] in
      do throws(VbdError) {
        let properties = try knownProperties()
        guard !isPaused else { return finish { done(nil) } }
        try writePrivate([DeviceNode("paused", "1")])
        ask({ $0.pause(flushes: !properties.isReadOnly, done: $1) }) { [self] failure in
          isPaused = true
          closeImage { [self] in
            environment.log(.information, "paused; the image is closed", about: identity)
            finish { done(failure) }
          }
        }
      } catch {
        finish { done(error) }
      }
    } cancel: {
      done($0)
    }
  }

  /// Goes on with the same image (nil) or with another one, which has to have the same size and sectors
  /// unless `allowsResize`; then the frontend is told the new size. Another image is written to `params`, so
  /// that a daemon which starts later serves it too. With an image named, be it the same, losses of the old
  /// one are forgotten: whoever names it says that it is good.
  ///
  /// `done` is called once, on the control thread; after an error the disk stays paused.
  public func resume(image parameters: String?, allowsResize: Bool, done: @escaping (VbdError?) -> Void) {
    command { [self] in
      do throws(VbdError) {
        let before = try knownProperties()
        guard isPaused, var changed = configuration else {
          guard parameters == nil else { throw VbdError("the disk is not paused; pause it first") }
          return finish { done(nil) }
        }
        if let parameters {
          changed.image = try changed.checkImage(parameters, directory: findNodes().directory)
        }
        let (opened, found) = try open(changed)
        try requireQueues(of: found)
        try requireSameSize(found, as: before, of: changed, unless: allowsResize)
        let old = (health, mediumNumber)
        adopt(opened, keepsLosses: parameters == nil)
        use(opened, found) { [self] failure in
          do throws(VbdError) {
            if let failure { throw failure }
            let written = [DeviceNode("params", changed.image), DeviceNode("paused", nil)]
            properties = found
            if found == before { try writePrivate(written) } else { try publishAgain(written) }
            (configuration, isPaused) = (changed, false)
            configuration?.isPaused = false
            environment.log(.information, "resumed with \(changed.image)", about: identity)
            if health.lossErrno == 0 { clearReport() }
            ask({ $0.resume(done: $1) }) { failure in self.finish { done(failure) } }
          } catch {
            (image, properties) = (nil, before)
            (health, mediumNumber) = old
            ask({ $0.pause(flushes: false, done: $1) }) { _ in self.finish { done(error) } }
          }
        }
      } catch {
        finish { done(error) }
      }
    } cancel: {
      done($0)
    }
  }

  /// Lets go of the image and goes on when nothing of ours touches it any longer.
  func closeImage(then: @escaping () -> Void) {
    claim = nil
    guard let closing = image else { return then() }
    image = nil
    let number = commands.ask { _ in then() }
    let (identity, post) = (identity, environment.post)
    closing.close { post(identity, .answered(question: number, failure: nil)) }
  }

  private func requireSameSize(
    _ found: VbdProperties, as before: VbdProperties, of changed: VbdConfiguration, unless allowsResize: Bool
  ) throws(VbdError) {
    guard found.sectorByteCount == before.sectorByteCount else {
      throw VbdError(
        "\(changed.image) would have sectors of \(found.sectorByteCount) bytes, the disk has "
          + "\(before.sectorByteCount); a connected guest cannot be told, so detach and attach it")
    }
    guard found.sectorCount == before.sectorCount || allowsResize else {
      throw VbdError(
        "\(changed.image) has \(found.sectorCount) sectors of 512 bytes, the disk has \(before.sectorCount); "
          + "allow it expressly (--allow-resize), or give an image of that size")
    }
  }

  /// Writes nodes of our own, which no frontend looks at.
  func writePrivate(_ written: [DeviceNode]) throws(VbdError) {
    let directory = try findNodes().directory
    do throws(StoreError) {
      try environment.store.transaction { tree throws(StoreError) in
        guard try tree.exists("\(directory)/state") else { throw .missing(path: "\(directory)/state") }
        for node in written { try node.write(to: tree, directory) }
      }
    } catch {
      throw VbdError(error)
    }
  }
}

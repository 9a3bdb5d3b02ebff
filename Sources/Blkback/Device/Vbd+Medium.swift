import RingKit

/// The image behind a disk: opening it, its size, and its exchange.
extension Vbd {
  /// What the frontend is told. Opens what can fail before any feature is announced, so that a bad image is
  /// told at once; the image of a paused disk is not kept.
  func knownProperties() throws(VbdError) -> VbdProperties {
    if let properties, image != nil || isPaused { return properties }
    let directory = try findNodes().directory
    let read = try VbdConfiguration.read(from: environment.store, directory: directory) {
      environment.image(atSocket: $0)
    }
    configuration = read
    isPaused = read.isPaused
    do throws(StoreError) {
      if isPaused,
        let published = try VbdProperties.published(in: environment.store, directory: directory, read)
      {
        properties = published
        return published
      }
    } catch {
      throw VbdError(error)
    }
    let wasLent = isLent
    let (opened, found) = try open(read)
    if !isPaused { adopt(opened, keepsLosses: wasLent) }
    properties = found
    return found
  }

  /// Opens an image and checks that it can be offered.
  func open(_ configuration: VbdConfiguration) throws(VbdError) -> (any BlockStore, VbdProperties) {
    claim = nil
    let opened = try environment.openStore(configuration)
    let properties = try VbdProperties(of: opened, configuration)
    _ = try offer.limits(for: properties)
    if let warning = opened.warning { environment.log(.warning, warning, about: identity) }
    return (opened, properties)
  }

  /// Takes an opened image over, which has lost nothing yet; unless it is the same one as before and
  /// `keepsLosses`.
  func adopt(_ opened: any BlockStore, keepsLosses: Bool = false) {
    image = opened
    (told["size"], refusedMedium) = (nil, nil)
    if keepsLosses && health.lossErrno != 0 { return }
    mediumNumber &+= 1
    let (identity, post, medium) = (identity, environment.post, mediumNumber)
    health = DiskHealth { post(identity, .lostData(medium: medium, errno: $0)) }
    opened.tell { post(identity, .told($0, $1)) }
    (told["size"], refusedMedium) = (nil, nil)
  }

  /// A flush has failed: from here on no write and no flush succeeds, until the image is opened anew.
  func reportLoss(errno: Int32) {
    report(
      "the medium has lost data that the guest wrote (error \(errno) on a flush): writes fail and flushes wait "
        + "from here on. Check the medium, then detach and attach the disk, or pause it and resume it with "
        + "--image and an image that is known to be good")
  }

  /// Writes what the disk is now, together with our state, whose watch makes Linux and Windows read the size
  /// anew (xen-blkfront.c, blkfront_connect; block protocol, resize).
  func publishAgain(_ extra: [DeviceNode] = []) throws(VbdError) {
    // A toolstack may write our state at the same moment; then its value is read and kept.
    for _ in 0..<4 {
      guard let own = handshake.own, let properties else { break }
      if try write(offer.nodes(for: properties) + extra, from: own, to: own) { return }
    }
    throw VbdError("the state of \(identity) changes too fast, or its directory is gone; nothing was written")
  }

  // MARK: Size

  /// Looks at the image's size anew and tells the frontend. Shrinking needs `allowsShrink`: what lies beyond
  /// the new end is lost to the guest. `done` is called once, on the control thread, with the size in
  /// 512-byte units.
  public func resize(
    allowsShrink: Bool = false, done: @escaping (Result<UInt64, VbdError>) -> Void
  ) {
    command { [self] in
      do throws(VbdError) {
        guard let image, let configuration, var properties else {
          throw VbdError(
            isPaused
              ? "the disk is paused, and its image closed; resume looks at the size (--allow-resize)"
              : isLent
                ? "the image is lent to others; its size is looked at when it comes back"
                : "the disk is not served; its error node and the log say why")
        }
        _ = try image.refreshByteCount()
        let count = usableSectorCount(of: image, properties)
        guard count != properties.sectorCount else {
          return finish { done(.success(count)) }
        }
        guard count > properties.sectorCount || allowsShrink else {
          throw VbdError(
            "\(configuration.image) has shrunk from \(properties.sectorCount) to \(count) sectors of 512 bytes; "
              + "allow it expressly (--allow-shrink) if the guest no longer uses what lies beyond")
        }
        properties.sectorCount = count
        properties.fitPhysicalSector(image.physicalBlockByteCount)
        let limits = try offer.limits(for: properties)
        self.properties = properties
        ask({ $0.setLimits(limits, done: $1) }) { [self] failure in
          do throws(VbdError) {
            if let failure { throw failure }
            try publishAgain()
            environment.log(.information, "resized to \(count) sectors of 512 bytes", about: identity)
            finish { done(.success(count)) }
          } catch {
            finish { done(.failure(error)) }
          }
        }
      } catch {
        finish { done(.failure(error)) }
      }
    } cancel: {
      done(.failure($0))
    }
  }

  /// Notices an image that has grown; one that has shrunk is told to the administrator once. For the daemon
  /// to call now and then.
  public func lookAtSize() {
    // Nothing tells of a rival that was killed.
    if rival?.server != nil { return refresh() }
    guard let image, let properties, !isPaused, isConnectionStable, !commands.isBusy else { return }
    do throws(VbdError) {
      _ = try image.refreshByteCount()
    } catch {
      tellOnce("size", "its size cannot be found out: \(error)")
      return
    }
    let count = usableSectorCount(of: image, properties)
    if count > properties.sectorCount {
      resize { [self] result in
        if case .failure(let error) = result { report(error.description) }
      }
    } else if count < properties.sectorCount {
      tellOnce(
        "size",
        "the image has shrunk from \(properties.sectorCount) to \(count) sectors of 512 bytes; requests beyond "
          + "its end fail. `ringback resize --allow-shrink` tells the guest")
    }
  }

  /// Whole logical sectors and whole blocks of the medium: its last bytes could not be transferred otherwise.
  private func usableSectorCount(of image: any BlockStore, _ properties: VbdProperties) -> UInt64 {
    let unit = UInt64(max(properties.sectorByteCount, image.geometry.blockByteCount))
    return image.byteCount / unit * (unit / 512)
  }

  // MARK: Media

  /// Exchanges the medium of a CD-ROM or removable disk: requests in flight end on the old one, and the
  /// frontend is told the new size. Nil leaves the drive empty. `done` is called once, on the control thread.
  /// After a failure the old medium stays.
  public func changeMedium(to parameters: String?, done: @escaping (VbdError?) -> Void) {
    command { [self] in
      do throws(VbdError) {
        guard var changed = configuration, properties != nil, !isPaused else {
          throw VbdError(
            isPaused
              ? "the disk is paused; resume it with the image instead"
              : "the disk is not served; its error node and the log say why")
        }
        guard changed.canChangeMedium else {
          throw VbdError("the disk is neither a CD-ROM nor removable; pause it and resume it with the image")
        }
        changed.image = try changed.checkImage(parameters ?? "", directory: findNodes().directory)
        guard changed.image != configuration?.image else { return finish { done(nil) } }
        let (opened, found) = try open(changed)
        try requireQueues(of: found)
        ask({ [changed] in $0.pause(flushes: changed.isWritable, done: $1) }) { [self] failure in
          // What the old medium could not keep was told as its loss; the exchange goes on.
          if let failure { environment.log(.warning, failure.description, about: identity) }
          exchange(for: opened, found, changed, done)
        }
      } catch {
        finish { done(error) }
      }
    } cancel: {
      done($0)
    }
  }

  /// A connection has as many queues as its frontend was offered.
  func requireQueues(of found: VbdProperties) throws(VbdError) {
    guard let count = connection?.statistics.count, count > found.maximumQueueCount else { return }
    throw VbdError(
      "the image can serve \(found.maximumQueueCount) queues and the frontend uses \(count); detach and attach "
        + "the disk instead")
  }

  /// Gives the paused queues another image, tells the frontend, and goes on; with the old one if the new one
  /// fails.
  func exchange(
    for opened: any BlockStore, _ found: VbdProperties, _ changed: VbdConfiguration,
    _ done: @escaping (VbdError?) -> Void
  ) {
    let (oldImage, oldProperties, oldConfiguration) = (image, properties, configuration)
    let oldHealth = (health, mediumNumber)
    adopt(opened)
    (properties, configuration) = (found, changed)
    use(opened, found) { [self] failure in
      do throws(VbdError) {
        if let failure { throw failure }
        try publishAgain([DeviceNode("params", changed.image)])
        environment.log(
          .information, changed.isEmpty ? "the drive is empty" : "medium changed to \(changed.image)",
          about: identity)
        clearReport()
        ask({ $0.resume(done: $1) }) { failure in self.finish { done(failure) } }
      } catch {
        guard let oldImage, let oldProperties else { return finish { done(error) } }
        adopt(oldImage)
        (health, mediumNumber) = oldHealth
        (properties, configuration) = (oldProperties, oldConfiguration)
        use(oldImage, oldProperties) { [self] _ in
          ask({ $0.resume(done: $1) }) { _ in self.finish { done(error) } }
        }
      }
    }
  }

  /// Gives the paused queues an image.
  func use(_ image: any BlockStore, _ properties: VbdProperties, then: @escaping (VbdError?) -> Void) {
    do throws(VbdError) {
      let limits = try offer.limits(for: properties)
      let health = health
      ask({ $0.use(image, limits: limits, health: health, done: $1) }, then: then)
    } catch {
      then(error)
    }
  }
}

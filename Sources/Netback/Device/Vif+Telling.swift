import RingKit

/// What an interface tells of its troubles.
extension Vif {
  /// Tells the log and the node that toolstacks look at (xenbus_client.c, xenbus_dev_error).
  func report(_ message: String) {
    environment.log(.failure, message, about: identity)
    do throws(StoreError) {
      try nodes?.reportError(message, in: environment.store)
      try nodes?.tellScript(message, in: environment.store)
    } catch {
      environment.log(.warning, "the error node could not be written: \(error)", about: identity)
    }
  }

  func clearReport() {
    do throws(StoreError) {
      try nodes?.clearError(in: environment.store)
      try nodes?.clearScriptError(in: environment.store)
    } catch {
      environment.log(.warning, "the error node could not be removed: \(error)", about: identity)
    }
  }

  func tellOnce(_ concern: String, _ message: String) {
    guard told[concern] != message else { return }
    told[concern] = message
    environment.log(.warning, message, about: identity)
  }
}

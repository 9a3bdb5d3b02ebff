/// What xl's user gets to read when the hotplug script of a device fails.
extension BackendNodes {
  /// Puts trouble into node `hotplug-error`, which libxl prints when the script fails (libxl_device.c,
  /// device_hotplug_child_death_cb). Scripts write it themselves, but not always: Xen 4.20's block-tap ends without
  /// a word when two guests want the same image. Nothing is written for a device without a script, or once the
  /// script has ended. At most 256 characters.
  public func tellScript(_ message: String, in store: any StoreAccess) throws(StoreError) {
    guard let script = try store.read("\(directory)/script"), !script.isEmpty,
      try store.read("\(directory)/hotplug-status") == nil
    else { return }
    try store.write("\(directory)/hotplug-error", StoreError.escaped(message, limit: 256))
  }

  /// Takes it back, so that it does not explain a later script's failure.
  public func clearScriptError(in store: any StoreAccess) throws(StoreError) {
    guard try store.exists("\(directory)/hotplug-error") else { return }
    try store.remove("\(directory)/hotplug-error")
  }
}

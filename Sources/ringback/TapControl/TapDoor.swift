/// The sockets on which taps' images can be had while no guest's ring is connected: seam between the taps and who
/// lends their images. All calls come on the control thread.
protocol TapDoor: AnyObject {
  /// Listens for a tap whose image has just been opened, or goes on after a pause.
  func open(minor: Int, image: TapImage, path: String) throws(TapError)
  /// Ends whatever uses the image now, because its guest's disk, or a pause, needs it; goes on listening.
  func takeBack(minor: Int)
  /// Ends whatever uses the image and stops listening.
  func close(minor: Int)
}

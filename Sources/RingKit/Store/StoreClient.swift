/// A connection to xenstore.
public final class StoreClient {}

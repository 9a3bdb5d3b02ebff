// swift-tools-version: 6.2
import PackageDescription

/// Every target is compiled with these: memory safety is opt-out per expression and a warning is an error.
let settings: [SwiftSetting] = [
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
  name: "ringback",
  products: [
    .executable(name: "ringback", targets: ["ringback"]),
    .library(name: "RingKit", targets: ["RingKit"]),
    .library(name: "Blkback", targets: ["Blkback"]),
    .library(name: "Netback", targets: ["Netback"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
  ],
  targets: [
    .target(name: "CShared"),
    .systemLibrary(name: "CXen"),
    .systemLibrary(name: "CUring"),
    .systemLibrary(name: "CAIO"),
    .systemLibrary(name: "CNBD"),
    .target(
      name: "RingKit",
      dependencies: [
        "CShared", "CXen", "CUring", "CAIO", "CNBD",
        .product(name: "Histogram", package: "hdrhistogram-swift"),
      ],
      swiftSettings: settings),
    .target(name: "Blkback", dependencies: ["RingKit"], swiftSettings: settings),
    .target(name: "Netback", dependencies: ["RingKit"], swiftSettings: settings),
    .target(name: "Frontends", dependencies: ["RingKit", "Blkback", "Netback"], swiftSettings: settings),
    .target(name: "Loopback", dependencies: ["RingKit"], swiftSettings: settings),
    .target(name: "Simulator", dependencies: ["RingKit", "Blkback", "Netback"], swiftSettings: settings),
    .executableTarget(
      name: "ringback",
      dependencies: [
        "RingKit", "Blkback", "Netback", "Frontends", "Loopback",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "TOMLKit", package: "TOMLKit"),
      ],
      swiftSettings: settings),
    .testTarget(name: "RingKitTests", dependencies: ["RingKit", "COracle"], swiftSettings: settings),
    .testTarget(
      name: "BlkbackTests", dependencies: ["Blkback", "Simulator", "RingKit"],
      swiftSettings: settings),
    .testTarget(
      name: "NetbackTests", dependencies: ["Netback", "Simulator", "RingKit", "COracle"],
      swiftSettings: settings),
    .testTarget(
      name: "LoopbackTests", dependencies: ["Loopback", "RingKit", "CXen"], swiftSettings: settings),
    .target(name: "COracle", path: "Tests/COracle"),
    .testTarget(
      name: "OracleTests", dependencies: ["COracle", "Blkback", "Netback", "RingKit"], swiftSettings: settings
    ),
    .testTarget(
      name: "EndToEndTests", dependencies: ["Blkback", "Netback", "Frontends", "Loopback", "RingKit"],
      swiftSettings: settings),
    .testTarget(
      name: "CommandTests",
      dependencies: [
        "ringback", "Blkback", "Netback", "Loopback", "RingKit",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: settings),
    .testTarget(name: "TidyTests", swiftSettings: settings),
  ],
  swiftLanguageModes: [.v6]
)

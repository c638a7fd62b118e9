import DeviceTree
import Glibc
import Testing

@Suite struct DeviceTreeTests {
  /// A tree with every kind of property.
  func sample() throws -> [UInt8] {
    try DeviceTreeWriter.build { tree throws(DeviceTreeError) in
      try tree.property("compatible", "castor,vm", "second")
      try tree.property("#address-cells", cells: [1])
      try tree.property("#size-cells", cells: [1])
      try tree.node("cpus") { node throws(DeviceTreeError) in
        try node.property("#address-cells", cells: [1])
        try node.property("#size-cells", cells: [0])
        try node.node("cpu@0") { processor throws(DeviceTreeError) in
          try processor.property("reg", cells: [0])
          try processor.property("flag")
        }
      }
      try tree.node("device") { node throws(DeviceTreeError) in
        try node.property("quad", quads: [0x1_2345_6789])
        try node.property("bytes", bytes: [1, 0xff, 0x20])
        try node.property("text", #"say "hello" \ twice"#)
        try node.property("nothing", "")
      }
    }
  }

  @Test func everyPropertyWrittenIsReadBack() throws {
    let root = try DeviceTreeNode(blob: sample())
    #expect(root.strings("compatible") == ["castor,vm", "second"])
    #expect(root.node(at: "/cpus/cpu@0")?.bytes("flag") == [])
    #expect(root.node(at: "/device")?.cells("quad") == [1, 0x2345_6789])
    #expect(root.node(at: "/device")?.bytes("bytes") == [1, 0xff, 0x20])
    #expect(root.node(at: "/device")?.strings("nothing") == [""])
    #expect(root.node(at: "/nowhere") == nil)
    #expect(root.cells("absent") == nil)
  }

  @Test func treeLargerThanTheFirstBufferGrows() throws {
    let blob = try DeviceTreeWriter.build { tree throws(DeviceTreeError) in
      for index in 0..<500 {
        try tree.node("node@\(index)") { node throws(DeviceTreeError) in
          try node.property("payload", bytes: [UInt8](repeating: UInt8(index & 0xff), count: 100))
        }
      }
    }
    #expect(blob.count > 50_000)
    let root = try DeviceTreeNode(blob: blob)
    #expect(root.children.count == 500)
    #expect(root.node(at: "/node@499")?.bytes("payload") == [UInt8](repeating: 0xf3, count: 100))
  }

  @Test(arguments: ["", "a/b", "a b", "a@1@2", "@1", "a@", "a\0b", "grün"])
  func nodeNameThatTheFormatForbidsIsRefused(name: String) {
    #expect(throws: DeviceTreeError.invalidText(name)) {
      try DeviceTreeWriter.build { tree throws(DeviceTreeError) in
        try tree.node(name) { _ in }
      }
    }
  }

  @Test func stringWithANULIsRefused() {
    #expect(throws: DeviceTreeError.invalidText("a\0b")) {
      try DeviceTreeWriter.build { tree throws(DeviceTreeError) in try tree.property("text", "a\0b") }
    }
  }

  @Test func everyTruncationIsRefused() throws {
    let blob = try sample()
    for count in 0..<blob.count {
      #expect(throws: DeviceTreeError.self) { try DeviceTreeNode(blob: Array(blob[..<count])) }
    }
  }

  @Test func everyCorruptByteIsReadWithoutATrap() throws {
    let blob = try sample()
    var refused = 0
    for index in blob.indices {
      for value in [0, 1, 0x7f, 0xff] as [UInt8] where blob[index] != value {
        var changed = blob
        changed[index] = value
        if (try? DeviceTreeNode(blob: changed).sourceText) == nil { refused += 1 }
      }
    }
    #expect(refused > 100)
  }

  @Test func nodesNestedTooDeepAreRefused() throws {
    func nest(_ tree: inout DeviceTreeWriter, _ depth: Int) throws(DeviceTreeError) {
      guard depth > 0 else { return }
      try tree.node("n") { node throws(DeviceTreeError) in try nest(&node, depth - 1) }
    }
    let allowed = try DeviceTreeWriter.build { tree throws(DeviceTreeError) in
      try nest(&tree, DeviceTreeNode.depthLimit)
    }
    #expect(throws: Never.self) { try DeviceTreeNode(blob: allowed) }
    let tooDeep = try DeviceTreeWriter.build { tree throws(DeviceTreeError) in
      try nest(&tree, DeviceTreeNode.depthLimit + 1)
    }
    #expect(throws: DeviceTreeError.self) { try DeviceTreeNode(blob: tooDeep) }
  }

  @Test func sourceTextShowsEachPropertyInTheFormThatSuitsIt() throws {
    let text = try DeviceTreeNode(blob: sample()).sourceText
    #expect(text.hasPrefix("/dts-v1/;\n\n/ {\n\tcompatible = \"castor,vm\", \"second\";\n"))
    #expect(text.contains("\t\tcpu@0 {\n\t\t\treg = <0x0>;\n\t\t\tflag;\n\t\t};\n"))
    #expect(text.contains("\t\tquad = <0x1 0x23456789>;\n\t\tbytes = [01 ff 20];\n"))
    #expect(text.contains(#"text = "say \"hello\" \\ twice";"#))
    #expect(text.contains(#"nothing = "";"#))
  }

  @Test(.enabled(if: access("/usr/bin/dtc", X_OK) == 0, "needs dtc"))
  func dtcCompilesTheSourceToAnEqualTreeWithoutWarnings() throws {
    let blob = try sample()
    let compiled = try compileWithDTC(DeviceTreeNode(blob: blob).sourceText)
    #expect(compiled.messages == "")
    #expect(try DeviceTreeNode(blob: compiled.blob) == DeviceTreeNode(blob: blob))
  }
}

/// Runs `dtc -I dts -O dtb` on a text and returns the blob and what it said.
func compileWithDTC(_ source: String) throws -> (blob: [UInt8], messages: String) {
  var template = Array("/tmp/castor-dtc-XXXXXX".utf8CString)
  let directory = try #require(mkdtemp(&template).map { String(cString: $0) })
  defer {
    for name in ["in.dts", "out.dtb", "messages"] { unlink("\(directory)/\(name)") }
    rmdir(directory)
  }
  let file = try #require(fopen("\(directory)/in.dts", "w"))
  #expect(fputs(source, file) >= 0)
  fclose(file)
  let status = system("dtc -I dts -O dtb -o \(directory)/out.dtb \(directory)/in.dts 2>\(directory)/messages")
  let messages = try String(decoding: readFile("\(directory)/messages"), as: UTF8.self)
  guard status == 0 else { return ([], messages) }
  return (try readFile("\(directory)/out.dtb"), messages)
}

func readFile(_ path: String) throws -> [UInt8] {
  let file = try #require(fopen(path, "r"))
  defer { fclose(file) }
  var bytes = [UInt8](repeating: 0, count: 1 << 20)
  bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
  return bytes
}

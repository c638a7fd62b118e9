import ArgumentParser

struct Control: ParsableCommand { static let configuration = CommandConfiguration(commandName: "ctl") }

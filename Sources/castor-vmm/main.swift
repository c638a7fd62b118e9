// The slim half of Castor: takes a complete machine description as arguments (Sources/Configuration) and runs it.
// `castor run` ends in an exec of this program; see docs/architecture.md for why there are two.

import Configuration
import Glibc
import Machine

exit(runMachine(arguments: Array(CommandLine.arguments.dropFirst())))

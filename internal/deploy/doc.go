// Package deploy holds the nouns of deployhook and the rules between them.
//
// What is written in deploy.yaml: [Config], [Hook], [Pipeline], [Job], [Step],
// [Host], [Secret]. What happens: [Delivery], [Event], [Run], [RunJob],
// [RunHost], [RunStep], [Release]. The rules: [Plan] decides what an event
// starts, [Schedule] which job is next, [Advance] what the end of a job means
// for the others, [Recover] what a switch that was cut short needs.
//
// The package is pure: no SQL, no HTTP, no files, no clock of its own.
package deploy

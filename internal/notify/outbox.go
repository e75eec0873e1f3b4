package notify

// perTarget is how many messages one target gets at once.
const perTarget = 4

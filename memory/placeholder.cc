// Replaced by the floor's first source.

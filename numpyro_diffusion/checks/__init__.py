"""What users give, checked before anything is computed: numbers, points and text."""

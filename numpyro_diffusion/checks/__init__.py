"""What users give, checked before anything is computed: numbers, points and text; and room for what is compiled."""

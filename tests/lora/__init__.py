"""The LoRA inside an adapter, merged, through PEFT and as a file of its own."""
